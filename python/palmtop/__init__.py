"""Asks PaliGemma about pictures, on the CPU.

    import palmtop

    model = palmtop.Model("model.palm")                     # or palmtop.Model.demo(), a small one that is inside
    session = model.session()
    features = session.encode(PIL.Image.open("cat.jpg"))   # or a numpy array, a path, the bytes of a file
    print(session.answer(features, "caption en").text)
    for piece in session.stream(features, "answer en what colour is the cat?"):
        print(piece, end="", flush=True)
    found = session.detect(features, "cat", "dog")
    print(found.labels, found.boxes)                        # names, and float32 [n, 4]: x_min, y_min, x_max, y_max

A prompt can be about several pictures, as about frames of a film: model.session(pictures=8), and a list of features, or
Frames, which keeps the last ones.

A Watch asks the same questions of a camera's frames again and again, and only when something in them changes.

Any number of threads may use a model. Only one thread at a time may use a session; otherwise the call raises Busy. The
exception is cancel(). Python's global lock is released while a picture is encoded or a prompt is answered.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, Iterator, List, Optional, Sequence, Tuple, Union, overload

import numpy as np

from . import _palmtop
from ._palmtop import Busy, Cancelled, DeadlinePassed, Error, __version__
from ._pixels import pixels_or_file
from ._pull import pull
from ._watch import AnswerRecord, Counts, EventRecord, Record, Watch

#: The features of one picture, or of several in the order in which the decoder sees them.
Pictures = Union["Features", Sequence["Features"]]
#: What an answer may turn out to be: another answer, or its tokens.
Draft = Union["Answer", Sequence[int], np.ndarray]

__all__ = [
    "Answer", "AnswerRecord", "Busy", "Cancelled", "Counts", "DeadlinePassed", "Error", "EventRecord", "Features", "Frames",
    "Model", "Plan", "Prefix", "Record", "Request", "Session", "Timings", "Watch", "__version__", "pull",
]


@dataclass(frozen=True)
class Plan:
    """Bytes that a session allocates, features of one picture included; bytes of the weights, which are mapped from the file
    and shared; and bytes of the features of each picture."""

    session_bytes: int
    weights_bytes: int
    features_bytes: int


@dataclass(frozen=True)
class Timings:
    """Seconds that the last calls of a session took, and the number of decoding steps."""

    encode: float
    prefill: float
    decode: float
    decode_steps: int
    rows: float  #: the last prefix, or the vectors of the last page or question


class Model:
    """A .palm file.

    It is mapped: opening is quick, and processes share it. The file must then stay as it is while the model is in use: if
    anybody shortens it, the system ends this process with SIGBUS; if anybody writes into it, answers are wrong. Replace a
    model by renaming a finished file into its place, and never write into one. With `map=False` the file is read into memory
    of this process instead, and what happens to it afterwards does not matter.
    """

    image_side: int  #: pictures are resized to a square of so many pixels a side
    image_tokens: int  #: tokens of a picture
    vocabulary: int  #: tokens that the model knows
    generation: int  #: 1 or 2, of PaliGemma
    has_mask_decoder: bool  #: segment() gives masks
    vector_size: Optional[int]  #: numbers of a vector, of a model for retrieval

    def __init__(self, path: Union[str, os.PathLike], *, map: bool = True):
        self._take(_palmtop.Model(os.fspath(path), map))

    @classmethod
    def demo(cls) -> "Model":
        """The model that is part of the package, to try it with. It knows a small world of emoji and words, and nothing
        else."""
        model = cls.__new__(cls)
        model._take(_palmtop.Model.demo())
        return model

    def _take(self, native: _palmtop.Model) -> None:
        self._native = native
        info = native.info()
        self.image_side, self.image_tokens, self.vocabulary, self.generation, self.has_mask_decoder, self.vector_size = info

    def preload(self) -> None:
        """Reads all weights once, so that the first answer does not wait for the disk."""
        self._native.preload()

    def lock(self) -> None:
        """Reads all weights, and keeps them in memory for as long as the model is in use. OSError if the system does not allow
        that much, which is usual without a privilege or a higher limit (ulimit -l)."""
        self._native.lock()

    def plan(
        self,
        *,
        batch: int = 1,
        prompt_tokens: int = 256,
        new_tokens: int = 256,
        pictures: int = 1,
        draft_tokens: int = 0,
        image_side: int = 16384,
        filter: Optional[str] = None,
        kv: str = "auto",
        threads: Optional[int] = None,
    ) -> Plan:
        """The memory that a session with these limits would take. Creates no session."""
        tokens = (batch, prompt_tokens, new_tokens, pictures, draft_tokens)
        return Plan(*self._native.plan((tokens, image_side, filter, kv, threads, None, True)))

    def session(
        self,
        *,
        batch: int = 1,
        prompt_tokens: int = 256,
        new_tokens: int = 256,
        pictures: int = 1,
        draft_tokens: int = 0,
        image_side: int = 16384,
        filter: Optional[str] = None,
        kv: str = "auto",
        threads: Optional[int] = None,
        isa: Optional[str] = None,
        lazy_memory: bool = False,
        cores: Sequence[int] = (),
        nice: Optional[int] = None,
    ) -> "Session":
        """Creates a session that answers up to `batch` prompts together, each about up to `pictures` pictures. Up to
        `draft_tokens` tokens of a draft are checked in one step. With `new_tokens=0` it gives no answers, only prefixes and
        vectors, and takes less memory. `filter` says how pictures are resized: bicubic, bilinear or bilinear-aliased,
        which fine-tunes on videos and pairs of pictures were trained with; the default is what the model's file says.
        `kv` is the format of the KV cache: auto, f32, f16 or int8. `isa` is the instruction set of the kernels, such as
        "avx2"; the default is the one that PALMTOP_ISA names, or the best of this CPU. All of them give the same bits.
        The session writes to every page of its memory, so that the system provides it now, unless `lazy_memory` is true.
        `cores` and `nice` are requests for the threads that the session starts; the system may refuse them."""
        tokens = (batch, prompt_tokens, new_tokens, pictures, draft_tokens)
        wanted = (tokens, image_side, filter, kv, threads, isa, lazy_memory)
        return Session(self, _palmtop.Session(self._native, wanted, list(cores), nice), pictures)


class Features:
    """The output of the image encoder for one picture. Encode a picture once, then ask about it as often as you
    like."""

    def __init__(self, native: _palmtop.Features):
        self._native = native

    @property
    def picture_size(self) -> Tuple[int, int]:
        """Width and height in pixels of the upright picture."""
        return self._native.picture_size()


@dataclass
class Answer:
    """An answer, and the objects that it locates, in pixels of the upright picture; of several, the first."""

    text: str
    tokens: np.ndarray  #: uint32 [tokens]
    probabilities: np.ndarray  #: float32 [tokens], the probability that the model gave to each token
    stop: str  #: end, limit, callback, cancelled or deadline
    prompt_tokens: int
    likelihood: float
    accepted_draft_tokens: int  #: tokens that the draft had right, and that took no step of their own
    labels: List[str]  #: one per object
    scores: np.ndarray  #: float32 [objects], likelihood of the label; NaN if there is no label
    boxes: np.ndarray  #: float32 [objects, 4]: x_min, y_min, x_max, y_max
    locations: np.ndarray  #: uint16 [objects, 4]: the model's location tokens y1, x1, y2, x2, 0 to 1023
    masks: Optional[np.ndarray]  #: bool [objects, height, width], over the whole picture; None if there is no mask
    picture_size: Tuple[int, int] = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def to_supervision(self, classes: Sequence[str] = ()) -> Any:
        """Converts the objects to supervision.Detections. The class id of a label is its index in `classes`, so that it
        is the same for every picture; other labels follow in order of appearance. data["class_name"] has the names."""
        import supervision  # type: ignore

        names = list(dict.fromkeys([*classes, *self.labels]))
        class_id = np.array([names.index(label) for label in self.labels], dtype=int)
        return supervision.Detections(
            xyxy=self.boxes.reshape(-1, 4),
            mask=self.masks,
            confidence=np.nan_to_num(self.scores, nan=0.0),
            class_id=class_id,
            data={"class_name": np.array(self.labels, dtype=str)},
        )


def _features(features: Features) -> _palmtop.Features:
    if isinstance(features, Features):
        return features._native
    raise TypeError(f"pictures are asked about by what Session.encode() gives of them, not by {type(features).__name__}")


@dataclass(frozen=True)
class Request:
    """A prompt, and the pictures that it is about. The answer is the one without `draft`, bit for bit; it comes sooner, the
    more of it the draft has right."""

    features: Pictures
    prompt: str
    draft: Draft = ()

    def _native(self) -> _palmtop._Asked:
        features = [self.features] if isinstance(self.features, Features) else self.features
        features = [_features(one) for one in features]
        draft = self.draft.tokens if isinstance(self.draft, Answer) else self.draft
        return features, self.prompt, [int(token) for token in draft]


@dataclass(frozen=True)
class Prefix:
    """What the decoder makes of pictures and a text, for a model that attends to it. Rows are those of all pictures, picture
    after picture, and then those of the text. The arrays are read-only views of what was computed, without a copy; each
    keeps all of the prefix in memory."""

    keys: Optional[np.ndarray]  #: float32 [layers, rows, kv_heads, head_dim], behind the rotary embedding
    values: Optional[np.ndarray]  #: float32 [layers, rows, kv_heads, head_dim]
    hidden: Optional[np.ndarray]  #: float32 [rows, width], behind the decoder's last norm
    mask: np.ndarray  #: bool [rows], whether a row is there: not those of missing pictures, which are zeros
    positions: np.ndarray  #: int32 [rows], cumsum(mask) - 1
    next_position: int  #: of what comes behind


def _prefix(native: _palmtop.Prefix) -> Prefix:
    def view(array: Optional[_palmtop.Array]) -> Optional[np.ndarray]:
        return None if array is None else np.asarray(array)

    return Prefix(
        keys=view(native.keys()),
        values=view(native.values()),
        hidden=view(native.hidden()),
        mask=np.asarray(native.mask()),
        positions=np.asarray(native.positions()),
        next_position=native.next_position(),
    )


def _answer(raw: _palmtop._Answered) -> Answer:
    text, tokens, probabilities, stop, prompt_tokens, likelihood, accepted_draft_tokens, picture_size, objects = raw
    width, height = picture_size
    masks = None
    if any(mask is not None for *_, mask in objects):
        masks = np.zeros((len(objects), height, width), dtype=bool)
        for whole, (*_, mask) in zip(masks, objects):
            if mask is not None:
                x, y, w, h, pixels = mask
                whole[y : y + h, x : x + w] = np.frombuffer(pixels, dtype=np.uint8).reshape(h, w)
    return Answer(
        text=text,
        tokens=np.array(tokens, dtype=np.uint32),
        probabilities=np.array(probabilities, dtype=np.float32),
        stop=stop,
        prompt_tokens=prompt_tokens,
        likelihood=likelihood,
        accepted_draft_tokens=accepted_draft_tokens,
        labels=[label for label, *_ in objects],
        scores=np.array([np.nan if score is None else score for _, score, *_ in objects], dtype=np.float32),
        boxes=np.array([box for _, _, box, *_ in objects], dtype=np.float32).reshape(-1, 4),
        locations=np.array([locations for *_, locations, _ in objects], dtype=np.uint16).reshape(-1, 4),
        masks=masks,
        picture_size=picture_size,
    )


class Session:
    """The memory and the threads that compute answers, for one call at a time."""

    def __init__(self, model: Model, native: _palmtop.Session, pictures: int):
        self.model = model
        self.pictures = pictures  #: maximum number of pictures of a prompt
        self._native = native

    def encode(self, picture: Any, *, format: Optional[str] = None, rotation: int = 0, timeout: Optional[float] = None) -> Features:
        """Encodes a picture: a PIL image, a path, the bytes of a JPEG, PNG, WebP, BMP, GIF or TIFF file, or an array of uint8.

        Arrays are [height, width, 3] (rgb, or format="bgr" as in OpenCV), [height, width, 4] (rgba or bgra), [height,
        width] (grey), or [height * 3 / 2, width] with format="nv12" or "nv21". `rotation` rotates an array clockwise by
        0, 90, 180 or 270 degrees. Raises DeadlinePassed after `timeout` seconds.

        A file is rotated as its Exif or XMP says. A PIL image is not: use PIL.ImageOps.exif_transpose if you need
        it."""
        taken = pixels_or_file(picture, format)
        if isinstance(taken, bytes):
            return Features(self._native.encode_file(taken, timeout))
        return Features(self._native.encode_pixels(*taken, rotation, timeout))

    def answer(
        self,
        features: Pictures,
        prompt: str,
        *,
        draft: Draft = (),
        max_new_tokens: Optional[int] = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 0.0,
        seed: int = 0,
        choices: Optional[Sequence[str]] = None,
        timeout: Optional[float] = None,
        on_piece: Optional[Callable[[int, str], Any]] = None,
    ) -> Answer:
        """Answers a prompt about a picture, or about several in their order: a list of features, or Frames. If you pass
        `choices`, the answer is one of them. `draft` is what it may turn out to be, such as the last answer about the same
        scene: see Request. `on_piece(prompt, text)` receives the
        answer piece by piece as it is generated; return True from it to end the answer. If the call is cancelled or
        `timeout` passes after the first token, it returns the partial answer, and `stop` says so; before the first
        token it raises."""
        return self.answer_requests(
            [Request(features, prompt, draft)], max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k,
            top_p=top_p, seed=seed, choices=choices, timeout=timeout, on_piece=on_piece,
        )[0]

    def answers(self, features: Pictures, prompts: Sequence[str], **options: Any) -> List[Answer]:
        """Answers up to `batch` prompts about a picture, or about the same pictures, together; each answer is the same as if
        asked alone. The options are those of answer_requests()."""
        return self.answer_requests([Request(features, prompt) for prompt in prompts], **options)

    def answer_requests(
        self,
        requests: Sequence[Request],
        *,
        max_new_tokens: Optional[int] = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 0.0,
        seed: int = 0,
        choices: Optional[Sequence[str]] = None,
        timeout: Optional[float] = None,
        on_piece: Optional[Callable[[int, str], Any]] = None,
    ) -> List[Answer]:
        """Answers up to `batch` requests, each about pictures of its own, together; each answer is the same as if asked alone.
        The options are those of answer()."""
        sampling = (temperature, top_k, top_p, seed)
        choices = None if choices is None else list(choices)
        asked = [request._native() for request in requests]
        raw = self._native.answer(asked, max_new_tokens, sampling, choices, timeout, on_piece)
        return [_answer(one) for one in raw]

    def detect(self, features: Pictures, *labels: str, **options: Any) -> Answer:
        """Asks for the boxes of objects."""
        return self.answer(features, _palmtop.object_prompt(False, list(labels)), **options)

    def segment(self, features: Pictures, *labels: str, **options: Any) -> Answer:
        """Asks for the boxes and masks of objects."""
        return self.answer(features, _palmtop.object_prompt(True, list(labels)), **options)

    def stream(self, features: Pictures, prompt: str, **options: Any) -> Iterator[str]:
        """Yields the answer piece by piece. A thread of its own computes it; closing the generator ends it."""
        pieces: queue.SimpleQueue = queue.SimpleQueue()
        over = threading.Event()

        def hear(_, text):
            pieces.put(text)
            return over.is_set()

        def work():
            try:
                self.answer(features, prompt, on_piece=hear, **options)
                pieces.put(None)
            except BaseException as error:
                pieces.put(error)

        thread = threading.Thread(target=work, name="palmtop-answer", daemon=True)
        thread.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            over.set()
            thread.join()

    def prefix(
        self,
        features: Union[Features, Sequence[Optional[Features]]],
        text: Union[str, Sequence[int]] = (),
        *,
        open: bool = False,
        keys_values: bool = True,
        hidden: bool = True,
        timeout: Optional[float] = None,
    ) -> Prefix:
        """Runs pictures and a text through the decoder, all rows seeing each other, for a model that attends to keys and
        values or takes the rows, such as a robot's action expert. None in the list is a missing picture: it takes no time,
        nothing sees it, its rows are zeros and false in the mask.

        `text` stands between begin-of-sequence and a newline; with `open`, nothing stands behind it. Tokens in its place
        are taken as they are. What `keys_values` and `hidden` leave out is None, and takes neither memory nor, in the last
        layer, time."""
        pictures = [features] if isinstance(features, Features) else list(features)
        native = [None if one is None else _features(one) for one in pictures]
        words, tokens = (text, []) if isinstance(text, str) else (None, [int(token) for token in text])
        return _prefix(self._native.prefix(native, words, tokens, open, (keys_values, hidden), timeout))

    def embed_picture(self, features: Features, *, timeout: Optional[float] = None) -> np.ndarray:
        """The vectors of a page, float32 [vectors, model.vector_size], each of length 1, of a model for retrieval. How well the
        page fits a question is (question @ page.T).max(axis=1).sum(). The array is read-only."""
        return np.asarray(self._native.embed_picture(_features(features), timeout))

    def embed_query(self, question: str, *, timeout: Optional[float] = None) -> np.ndarray:
        """The vectors of a question, like those of embed_picture(), in the wording that the model was taught."""
        return np.asarray(self._native.embed_query(question, timeout))

    def cancel(self) -> None:
        """Stops the call that is using this session within about the time of one layer; callable from any thread. That
        call raises Cancelled, and so does every later call until reset_cancel()."""
        self._native.cancel()

    def reset_cancel(self) -> None:
        """Clears the request to cancel, so that later calls run again."""
        self._native.reset_cancel()

    @property
    def timings(self) -> Timings:
        """The time that the last calls took."""
        return Timings(*self._native.timings())


class Frames(Sequence[Features]):
    """The last frames of a film or a camera, oldest first, to be asked about together:

        session = model.session(pictures=8, draft_tokens=8)
        frames, answer = palmtop.Frames(session), ()
        for frame in camera:
            frames.push(frame, format="bgr")
            answer = session.answer(frames, "caption en", draft=answer)

    Each frame is encoded once, when it comes, and its features are kept for as long as it is one of the last `maxlen`: by
    default as many as the session has room for in a prompt. One thread at a time may use them, as the session."""

    def __init__(self, session: Session, maxlen: Optional[int] = None):
        maxlen = session.pictures if maxlen is None else maxlen
        if not 1 <= maxlen <= session.pictures:
            raise ValueError(f"{maxlen} frames, but the session takes 1 to {session.pictures} pictures in a prompt")
        self.session = session
        self.maxlen = maxlen  #: maximum number of frames
        self._last: Deque[Features] = deque(maxlen=maxlen)

    def push(
        self, frame: Any, *, format: Optional[str] = None, rotation: int = 0, timeout: Optional[float] = None
    ) -> Features:
        """Encodes the next frame, as Session.encode() does, and forgets the oldest one if there are more than `maxlen`. If it
        raises, the frames are as they were."""
        features = self.session.encode(frame, format=format, rotation=rotation, timeout=timeout)
        self._last.append(features)
        return features

    def clear(self) -> None:
        """Forgets all frames, as when a film is cut."""
        self._last.clear()

    def __len__(self) -> int:
        return len(self._last)

    @overload
    def __getitem__(self, index: int) -> Features: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Features]: ...
    def __getitem__(self, index: Union[int, slice]) -> Union[Features, Sequence[Features]]:
        return list(self._last)[index]
