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

A Watch asks the same questions of a camera's frames again and again, and only when something in them changes.

Any number of threads may use a model. Only one thread at a time may use a session; otherwise the call raises Busy. The
exception is cancel(). Python's global lock is released while a picture is encoded or a prompt is answered.
"""

from __future__ import annotations

import os
import queue
import threading
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np

from . import _palmtop
from ._palmtop import Busy, Cancelled, DeadlinePassed, Error, __version__
from ._pixels import pixels_or_file
from ._pull import pull
from ._watch import AnswerRecord, Counts, EventRecord, Record, Watch

__all__ = [
    "Answer", "AnswerRecord", "Busy", "Cancelled", "Counts", "DeadlinePassed", "Error", "EventRecord", "Features", "Model",
    "Plan", "Record", "Session", "Timings", "Watch", "__version__", "pull",
]


@dataclass(frozen=True)
class Plan:
    """Bytes that a session allocates, and bytes of the weights, which are mapped from the file and shared."""

    session_bytes: int
    weights_bytes: int


@dataclass(frozen=True)
class Timings:
    """Seconds that the last calls of a session took, and the number of decoding steps."""

    encode: float
    prefill: float
    decode: float
    decode_steps: int


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
        self.image_side, self.image_tokens, self.vocabulary, self.generation, self.has_mask_decoder = info

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
        image_side: int = 16384,
        kv: str = "auto",
        threads: Optional[int] = None,
    ) -> Plan:
        """The memory that a session with these limits would take. Creates no session."""
        return Plan(*self._native.plan((batch, prompt_tokens, new_tokens, image_side, kv, threads, None, True)))

    def session(
        self,
        *,
        batch: int = 1,
        prompt_tokens: int = 256,
        new_tokens: int = 256,
        image_side: int = 16384,
        kv: str = "auto",
        threads: Optional[int] = None,
        isa: Optional[str] = None,
        lazy_memory: bool = False,
        cores: Sequence[int] = (),
        nice: Optional[int] = None,
    ) -> "Session":
        """Creates a session that answers up to `batch` prompts together. `kv` is the format of the KV cache: auto, f32,
        f16 or int8. `isa` is the instruction set of the kernels, such as "avx2"; the default is the one that
        PALMTOP_ISA names, or the best of this CPU. All of them give the same bits. The session writes to every page of
        its memory, so that the system provides it now, unless `lazy_memory` is true. `cores` and `nice` are requests for
        the threads that the session starts; the system may refuse them."""
        wanted = (batch, prompt_tokens, new_tokens, image_side, kv, threads, isa, lazy_memory)
        return Session(self, _palmtop.Session(self._native, wanted, list(cores), nice))


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
    """An answer, and the objects that it locates, in pixels of the upright picture."""

    text: str
    tokens: np.ndarray  #: uint32 [tokens]
    probabilities: np.ndarray  #: float32 [tokens], the probability that the model gave to each token
    stop: str  #: end, limit, callback, cancelled or deadline
    prompt_tokens: int
    likelihood: float
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


def _answer(raw: _palmtop._Answered, picture_size: Tuple[int, int]) -> Answer:
    text, tokens, probabilities, stop, prompt_tokens, likelihood, objects = raw
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
        labels=[label for label, *_ in objects],
        scores=np.array([np.nan if score is None else score for _, score, *_ in objects], dtype=np.float32),
        boxes=np.array([box for _, _, box, *_ in objects], dtype=np.float32).reshape(-1, 4),
        locations=np.array([locations for *_, locations, _ in objects], dtype=np.uint16).reshape(-1, 4),
        masks=masks,
        picture_size=picture_size,
    )


class Session:
    """The memory and the threads that compute answers, for one call at a time."""

    def __init__(self, model: Model, native: _palmtop.Session):
        self.model = model
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
        features: Features,
        prompt: str,
        *,
        max_new_tokens: Optional[int] = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 0.0,
        seed: int = 0,
        choices: Optional[Sequence[str]] = None,
        timeout: Optional[float] = None,
        on_piece: Optional[Callable[[int, str], Any]] = None,
    ) -> Answer:
        """Answers a prompt. If you pass `choices`, the answer is one of them. `on_piece(prompt, text)` receives the
        answer piece by piece as it is generated; return True from it to end the answer. If the call is cancelled or
        `timeout` passes after the first token, it returns the partial answer, and `stop` says so; before the first
        token it raises."""
        return self.answers(
            features, [prompt], max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
            seed=seed, choices=choices, timeout=timeout, on_piece=on_piece,
        )[0]

    def answers(
        self,
        features: Features,
        prompts: Sequence[str],
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
        """Answers up to `batch` prompts about a picture together; each answer is the same as if asked alone. See
        answer()."""
        sampling = (temperature, top_k, top_p, seed)
        choices = None if choices is None else list(choices)
        raw = self._native.answer(
            features._native, list(prompts), max_new_tokens, sampling, choices, timeout, on_piece
        )
        size = features.picture_size
        return [_answer(one, size) for one in raw]

    def detect(self, features: Features, *labels: str, **options: Any) -> Answer:
        """Asks for the boxes of objects."""
        return self.answer(features, _palmtop.object_prompt(False, list(labels)), **options)

    def segment(self, features: Features, *labels: str, **options: Any) -> Answer:
        """Asks for the boxes and masks of objects."""
        return self.answer(features, _palmtop.object_prompt(True, list(labels)), **options)

    def stream(self, features: Features, prompt: str, **options: Any) -> Iterator[str]:
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
