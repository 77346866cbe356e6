"""The package against the real library: python test_palmtop.py MODEL PICTURE. Prints "caption en" of the picture for comparison,
and of the picture and another."""

import io
import os
import shutil
import struct
import sys
import tempfile
import threading
import types

import numpy as np

import palmtop

model_path, picture_path = sys.argv[1:]


def refused(kind, call):
    try:
        call()
    except kind as error:
        assert str(error), "an error without words"
    else:
        raise AssertionError(f"not refused with {kind.__name__}")


refused(OSError, lambda: palmtop.Model("/nowhere/at/all"))
refused(palmtop.Error, lambda: palmtop.Model(picture_path))
model = palmtop.Model(model_path)
assert model.image_side > 0 and model.vocabulary > 0 and model.has_mask_decoder
plan = model.plan(new_tokens=40)
assert plan.session_bytes > plan.features_bytes > 0 and plan.weights_bytes > 0
assert model.plan(new_tokens=40, pictures=2).session_bytes > plan.session_bytes
assert model.plan(new_tokens=40, draft_tokens=2).session_bytes > plan.session_bytes
refused(ValueError, lambda: model.plan(batch=0))
refused(ValueError, lambda: model.plan(pictures=0))
refused(ValueError, lambda: model.session(draft_tokens=1 << 20))
refused(ValueError, lambda: model.session(kv="f13"))
refused(ValueError, lambda: model.session(isa="mmx"))
for isa in ("avx2", "neon"):  # of which no CPU has both
    try:
        model.session(isa=isa)
    except ValueError as error:
        lacking = str(error)
assert "this CPU does not have" in lacking
session = model.session(batch=2, new_tokens=40, threads=2)
model.preload()
try:
    model.lock()
except OSError as error:
    assert "locked memory" in str(error)

features = session.encode(picture_path)
assert features.picture_size == (640, 361)
caption = session.answer(features, "caption en")
plain = model.session(new_tokens=40, isa="scalar")
assert plain.answer(plain.encode(picture_path), "caption en").probabilities.tobytes() == caption.probabilities.tobytes()
assert caption.tokens.dtype == np.uint32 and caption.probabilities.dtype == np.float32
assert len(caption.tokens) == len(caption.probabilities) > 0 and str(caption) == caption.text
both = session.answers(features, ["detect cat", "caption en"])
assert both[1].text == caption.text, "each as it would be answered alone"
assert session.timings.encode > 0 and session.timings.decode_steps > 0

# A model that was read does not need its file any more.
with tempfile.TemporaryDirectory() as folder:
    copy = os.path.join(folder, "copy.palm")
    shutil.copy(model_path, copy)
    owned = palmtop.Model(copy, map=False)
    os.truncate(copy, 0)
    refused(palmtop.Error, lambda: palmtop.Model(copy, map=False))
    again = owned.session(new_tokens=40)
    assert again.answer(again.encode(picture_path), "caption en").text == caption.text

# Pieces are the answer; a generator that is closed ends it.
assert "".join(session.stream(features, "caption en")) == caption.text
pieces = session.stream(features, "caption en")
first = next(pieces)
pieces.close()
assert first and session.answer(features, "caption en").text == caption.text
refused(ValueError, lambda: list(session.stream(features, "a <image> b")))


def fails(prompt, text):
    raise KeyError("of the listener")


refused(KeyError, lambda: session.answer(features, "caption en", on_piece=fails))
stopped = session.answer(features, "caption en", on_piece=lambda prompt, text: True)
assert stopped.stop == "callback" and caption.text.startswith(stopped.text)

# A session in use is busy, for other threads and its own listener.
refused(palmtop.Busy, lambda: session.answer(features, "caption en", on_piece=lambda *_: session.timings))

# What is no picture is told as such.
for wrong in (picture_path, None, [features, None], [picture_path], 7):
    refused(TypeError, lambda: session.answer(wrong, "caption en"))
refused(ValueError, lambda: session.answer([features, features], "caption en"))

# Deadlines and buttons.
refused(palmtop.DeadlinePassed, lambda: session.answer(features, "caption en", timeout=0))
refused(palmtop.DeadlinePassed, lambda: session.encode(picture_path, timeout=0))
refused(ValueError, lambda: session.answer(features, "caption en", timeout=-1))
assert session.answer(features, "caption en", timeout=3600).text == caption.text
session.cancel()
refused(palmtop.Cancelled, lambda: session.answer(features, "caption en"))
session.reset_cancel()
button = threading.Timer(0, session.cancel)


def press(prompt, text):
    if not button.is_alive() and not button.finished.is_set():
        button.start()
        button.join()


cut = session.answer(features, "caption en", on_piece=press)
assert cut.stop == "cancelled" and len(cut.tokens) < 40
session.reset_cancel()

# While it computes, other threads of Python run: else none of them could find it busy.


def found_busy(call):
    for _ in range(1000):
        worker = threading.Thread(target=call)
        worker.start()
        try:
            while worker.is_alive():
                session.timings
        except palmtop.Busy:
            return True
        finally:
            worker.join()
    return False


assert found_busy(lambda: session.encode(picture_path))
assert found_busy(lambda: session.encode(np.zeros((400, 600, 3), np.uint8)))
assert found_busy(lambda: session.answer(features, "caption en"))

# Arrays.
rgb = (np.arange(70 * 96 * 3) * 7 % 251).astype(np.uint8).reshape(70, 96, 3)
tokens = lambda picture, **how: session.answer(session.encode(picture, **how), "caption en").tokens.tolist()
expected = tokens(rgb)
assert tokens(rgb[:, :, ::-1], format="bgr") == expected
assert tokens(np.dstack([rgb, rgb[:, :, 0]])) == expected
assert tokens(np.dstack([rgb[:, :, ::-1], rgb[:, :, 0]]), format="bgra") == expected
assert tokens(np.rot90(rgb), rotation=90) == expected, "np.rot90 turns anticlockwise, rotation clockwise"
grey = rgb[:, :, 0]
assert tokens(grey) == tokens(np.dstack([grey] * 3))
nv12 = (np.arange(96 * 96) * 5 % 253).astype(np.uint8).reshape(96, 96)
swapped = nv12.copy()
swapped[64:, 0::2], swapped[64:, 1::2] = nv12[64:, 1::2], nv12[64:, 0::2]
assert tokens(nv12, format="nv12") == tokens(swapped, format="nv21")
assert session.encode(nv12, format="nv12", rotation=90).picture_size == (64, 96)
for wrong in (rgb.astype(np.float32), np.zeros(7, np.uint8), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)):
    refused(ValueError, lambda: session.encode(wrong))
refused(ValueError, lambda: session.encode(rgb, format="nv12"))
refused(ValueError, lambda: session.encode(nv12[:95], format="nv12"))
refused(ValueError, lambda: session.encode(rgb, rotation=45))
refused(palmtop.Error, lambda: session.encode(b"no picture"))

# Several pictures, in their order, each encoded once; and drafts, which change nothing but the time.
film = model.session(batch=2, new_tokens=40, pictures=3, draft_tokens=4)
first, second = film.encode(picture_path), film.encode(rgb)
several = film.answer([first, second], "caption en")
same = lambda a, b: a.tokens.tolist() == b.tokens.tolist() and a.probabilities.tobytes() == b.probabilities.tobytes()
assert several.prompt_tokens == caption.prompt_tokens + model.image_tokens and several.picture_size == (640, 361)
assert not same(several, film.answer([second, first], "caption en")), "pictures have an order"
assert same(several, film.answer((first, second), "caption en")) and same(caption, film.answer([first], "caption en"))
assert film.answer([second, first], "caption en").picture_size == (96, 70)
assert several.accepted_draft_tokens == 0
drafted = film.answer([first, second], "caption en", draft=several)
assert same(several, drafted) and drafted.accepted_draft_tokens > 5
drafted = film.answer([first, second], "caption en", draft=several.tokens[:2])
assert same(several, drafted) and 0 < drafted.accepted_draft_tokens <= 2
assert same(several, film.answer([first, second], "caption en", draft=[2**32 - 1, 1]))
both = film.answer_requests(
    [palmtop.Request([first, second], "caption en", several), palmtop.Request(first, "caption en")]
)
assert same(both[0], several) and same(both[1], caption) and both[1].accepted_draft_tokens == 0
assert same(film.answers([first, second], ["detect cat", "caption en"])[1], several)
assert "".join(film.stream([first, second], "caption en")) == several.text
refused(ValueError, lambda: film.answer([], "caption en"))
refused(ValueError, lambda: film.answer([first] * 4, "caption en"))
refused(ValueError, lambda: session.answer([first, second], "caption en"))
refused(ValueError, lambda: film.answer_requests([]))
refused(ValueError, lambda: film.answer_requests([palmtop.Request(first, "a")] * 3))
refused(OverflowError, lambda: film.answer(first, "caption en", draft=[-1]))


class Counting:
    pictures, encoded = film.pictures, 0

    def encode(self, frame, **how):
        self.encoded += 1
        return film.encode(frame, **how)


# A window over a film encodes what is new, and nothing else.
counting, answer = Counting(), ()
window = palmtop.Frames(counting)
frames = [rgb + 10 * n for n in range(6)]
for newest, frame in enumerate(frames):
    window.push(frame[:, :, ::-1], format="bgr")
    last = [film.encode(one) for one in frames[max(newest - 2, 0) : newest + 1]]
    assert len(window) == len(last) and counting.encoded == newest + 1
    answer = film.answer(window, "caption en", draft=answer)
    assert same(answer, film.answer(last, "caption en"))
kept = list(window)
refused(palmtop.DeadlinePassed, lambda: window.push(rgb, timeout=0))
assert list(window) == kept and window[-1] is kept[2] and window[:2] == kept[:2] and window.maxlen == 3
window.clear()
assert len(window) == 0 and len(palmtop.Frames(film, 2)) == 0
refused(ValueError, lambda: film.answer(window, "caption en"))
refused(ValueError, lambda: palmtop.Frames(film, 4))
refused(ValueError, lambda: palmtop.Frames(film, 0))

# Boxes and masks, whatever the model thinks.
codes = "".join(f"<seg{n:03}>" for n in range(0, 128, 8))
objects = "<loc0256><loc0000><loc0768><loc0512>" + codes + " cat ; <loc0000><loc0512><loc1023><loc1023>" + codes + " cat"
features = session.encode(rgb)
big = model.session(new_tokens=80)
found = big.segment(features, "cat", choices=[objects])
assert found.text == objects and found.stop == "end" and abs(found.likelihood - 1) < 1e-6
assert found.labels == ["cat", "cat"] and found.boxes.shape == (2, 4) and found.boxes.dtype == np.float32
assert found.boxes[0].tolist() == [0, 17.5, 48, 52.5]
assert found.locations.tolist() == [[256, 0, 768, 512], [0, 512, 1023, 1023]]
assert found.masks.shape == (2, 70, 96) and found.masks.dtype == bool and found.masks.any(axis=(1, 2)).all()
assert not found.masks[0][:, 48:].any() and not found.masks[1][:, :48].any()
assert caption.masks is None or caption.masks.shape[0] == len(caption.labels)
refused(ValueError, lambda: session.detect(features))
refused(ValueError, lambda: session.detect(features, "a;b"))

try:
    import supervision
except ImportError:
    # A stand-in that takes what the real one takes.
    supervision = types.ModuleType("supervision")
    supervision.Detections = lambda **fields: types.SimpleNamespace(**fields)
    sys.modules["supervision"] = supervision
    print("SKIPPED: conversion with the real package supervision: it is not here", file=sys.stderr)
detections = found.to_supervision()
assert detections.xyxy.shape == (2, 4) and detections.mask.shape == (2, 70, 96)
assert detections.class_id.tolist() == [0, 0] and detections.data["class_name"].tolist() == ["cat", "cat"]
assert not np.isnan(detections.confidence).any()
assert found.to_supervision(["dog", "cat"]).class_id.tolist() == [1, 1], "as in the list"

try:
    import PIL.Image
except ImportError:
    print("SKIPPED: pictures of Pillow: it is not here", file=sys.stderr)
else:
    assert tokens(PIL.Image.fromarray(rgb)) == expected
    file = io.BytesIO()
    PIL.Image.fromarray(rgb).save(file, "PNG")
    assert tokens(file.getvalue()) == expected

for answer in (caption, several):
    pairs = zip(answer.tokens, answer.probabilities)
    bits = " ".join(f"{t}:{struct.unpack('<I', struct.pack('<f', p))[0]:08x}" for t, p in pairs)
    sys.stdout.buffer.write(f"{bits} {answer.text}\n".encode())
