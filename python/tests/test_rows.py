"""What the decoder gives beside words, against the real library: python test_rows.py MODEL RETRIEVAL_MODEL PICTURE ARRAYS. Writes
the numbers of a prefix, of a page and of a question to the file ARRAYS, for comparison."""

import gc
import sys

import numpy as np

import palmtop

model_path, retrieval_path, picture_path, arrays_path = sys.argv[1:]
model = palmtop.Model(model_path)


def refused(kind, call):
    try:
        call()
    except kind as error:
        assert str(error), "an error without words"
    else:
        raise AssertionError(f"not refused with {kind.__name__}")


# A session that only gives prefixes, with the filter of fine-tunes on videos.
session = model.session(new_tokens=0, pictures=3, filter="bilinear-aliased")
assert model.plan(new_tokens=0, pictures=3).session_bytes < model.plan(pictures=3).session_bytes
refused(ValueError, lambda: model.session(filter="nearest"))
rgb = (np.arange(70 * 96 * 3) * 7 % 251).astype(np.uint8).reshape(70, 96, 3)
first, second = session.encode(picture_path), session.encode(rgb)
prefix = session.prefix([first, None, second], "fold the shirt")
layers, rows, kv_heads, head_dim = prefix.keys.shape
assert rows > 3 * model.image_tokens and prefix.values.shape == prefix.keys.shape
assert prefix.hidden.shape[0] == rows and prefix.mask.shape == prefix.positions.shape == (rows,)
assert prefix.keys.dtype == prefix.values.dtype == prefix.hidden.dtype == np.float32
assert prefix.mask.dtype == bool and prefix.positions.dtype == np.int32
middle = slice(model.image_tokens, 2 * model.image_tokens)
assert not prefix.mask[middle].any() and prefix.mask.sum() == rows - model.image_tokens == prefix.next_position
assert (prefix.positions == np.cumsum(prefix.mask) - 1).all()
assert not prefix.keys[:, middle].any() and prefix.keys[:, : model.image_tokens].any() and not prefix.hidden[middle].any()
assert session.timings.rows > 0
refused(TypeError, lambda: session.prefix([first, picture_path], "fold the shirt"))
numbers = [prefix.keys.copy(), prefix.values.copy(), prefix.hidden.copy(), prefix.mask.copy(), prefix.positions.copy()]

# Views, not copies: nobody can write them, two of them lie at the same place, and each keeps the memory alive.
again = np.asarray(prefix.keys)
refused(ValueError, lambda: prefix.keys.__setitem__((0, 0, 0, 0), 1))
assert not prefix.keys.flags.writeable and not prefix.keys.flags.owndata and prefix.keys.flags.c_contiguous
address = lambda array: array.__array_interface__["data"][0]
native = prefix.keys.base
assert address(np.asarray(native)) == address(prefix.keys) == address(again)
kept, copy = prefix.values, prefix.values.copy()
del prefix, again, native
gc.collect()
other = session.prefix([second, None, first], "fold the shirt")
assert (kept == copy).all() and other.values.shape == kept.shape and (other.values != kept).any()

# One picture is a list of one; tokens are taken as they are; what is not kept is none.
single = session.prefix(first, [2, 7, 9], hidden=False)
assert single.hidden is None and single.keys.shape[1] == model.image_tokens + 3
alone = session.prefix([], np.array([2, 7, 9], dtype=np.int32), keys_values=False)
assert alone.keys is None and alone.values is None and alone.hidden.shape[0] == 3
prompt, opened = session.prefix(first, "fold the shirt"), session.prefix(first, "fold the shirt", open=True)
assert prompt.next_position == opened.next_position + 1, "a newline"

refused(ValueError, lambda: session.prefix([]))
refused(ValueError, lambda: session.prefix([None]))
refused(ValueError, lambda: session.prefix([first] * 4, "a"))
refused(ValueError, lambda: session.prefix(first, "a <image> b"))
refused(ValueError, lambda: session.prefix(first, [1 << 31]))
refused(ValueError, lambda: session.prefix(first, [7] * 100_000))
refused(ValueError, lambda: session.answer(first, "caption en"))
refused(palmtop.DeadlinePassed, lambda: session.prefix(first, "a", timeout=0))
session.cancel()
refused(palmtop.Cancelled, lambda: session.prefix(first, "a"))
session.reset_cancel()

# A session that answers gives the same rows, and the same answers afterwards.
answering = model.session(new_tokens=12, pictures=3, filter="bilinear-aliased")
before = answering.answer([first, second], "caption en")
same = answering.prefix([second, None, first], "fold the shirt")
assert same.keys.tobytes() == other.keys.tobytes() and same.hidden.tobytes() == other.hidden.tobytes()
assert answering.answer([first, second], "caption en").probabilities.tobytes() == before.probabilities.tobytes()

# A model that is not for retrieval says so.
assert model.vector_size is None
refused(ValueError, lambda: session.embed_picture(first))
refused(ValueError, lambda: session.embed_query("when?"))

# One that is gives vectors of length 1, and a page fits the question better that its vectors are nearer to.
retrieval = palmtop.Model(retrieval_path)
session = retrieval.session(new_tokens=0)
assert retrieval.vector_size == 40
page, question = session.embed_picture(session.encode(picture_path)), session.embed_query("when does the bus leave?")
assert page.shape[1] == question.shape[1] == 40 and page.shape[0] > retrieval.image_tokens and page.dtype == np.float32
for vectors in (page, question):
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5) and not vectors.flags.writeable
assert session.timings.rows > 0
score = lambda question, page: (question @ page.T).max(axis=1).sum()
assert score(page, page) > score(page, session.embed_picture(session.encode(rgb))), "nothing fits a page as itself does"
refused(ValueError, lambda: session.embed_query("far too long " * 500))
refused(ValueError, lambda: session.embed_picture(first))
refused(palmtop.DeadlinePassed, lambda: session.embed_query("when?", timeout=0))

with open(arrays_path, "wb") as file:
    for array in (*numbers, page, question):
        file.write(array.tobytes())
