"""The perception loop over frames of the caller."""

from __future__ import annotations

import time as clock
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from . import _palmtop, _toml
from ._pixels import pixels_or_file

if TYPE_CHECKING:
    from . import Model


@dataclass
class Record:
    """Something that a watch tells about a frame, with the objects that the answer locates in the question's zone, in pixels
    of the upright picture. It is an AnswerRecord or an EventRecord."""

    camera: str
    question: str  #: the question's name; its prompt if it has no name
    picture: int  #: the frame's number among those of its camera, from 0
    unix_time: float  #: when the frame was exposed, in seconds since 1970
    since_start: float  #: seconds from the first frame of the watch to this one
    latency: float  #: seconds from the frame's exposure until this was known
    text: str  #: the answer; empty for events that end() ended
    labels: List[str]  #: one per object
    scores: np.ndarray  #: float32 [objects], likelihood of the label; NaN if there is no label
    boxes: np.ndarray  #: float32 [objects, 4]: x_min, y_min, x_max, y_max
    tracks: List[Optional[int]]  #: per object, the number that it keeps from look to look; None before it is known
    masks: Optional[np.ndarray]  #: bool [objects, height, width], over the whole picture; None if there is no mask
    picture_size: Tuple[int, int] = field(repr=False)
    json: str = field(repr=False)  #: as `palmtop watch --json` prints it, without the end of the line


@dataclass
class AnswerRecord(Record):
    """An answer that changes what is believed; with all_answers=True, any answer."""

    changed: bool  #: something is believed from now on that was not before
    score: Optional[float]  #: with `choose`, the likelihood of the answer


@dataclass
class EventRecord(Record):
    """The beginning or the end of an event."""

    id: str  #: the same at its beginning and its end, and never given again
    phase: str  #: begin or end
    rule: str
    lasted: Optional[float]  #: seconds, at its end
    track: Optional[int]  #: for rules about single objects, the number of the object
    label: Optional[str]  #: and what it is called


@dataclass(frozen=True)
class Counts:
    """What a watch has done since it was created. Latencies are seconds of the last 4096 looks, from exposure to the last
    answer; None if there was none."""

    pictures: int  #: frames
    not_looked: int  #: of those, that nothing was asked about: nothing moved, nothing was due, or it was paused
    still: int  #: of those, in which nothing moved
    encoded: int  #: frames that were encoded
    same: int  #: of those, that nothing was asked about, since nothing was new to the encoder
    answers: int  #: runs of the decoder
    spared: int  #: answers that were not asked for, since nothing was new to the encoder
    late: int  #: answers for which the budget was too short
    tokens: int  #: tokens of the answers
    drafted: int  #: of those, that the drafts had right
    events: int  #: events that began
    latency_p50: Optional[float]
    latency_p95: Optional[float]
    latency_p99: Optional[float]
    latency_max: Optional[float]


class Watch:
    """Asks the same questions of the frames of one or several cameras, and turns the answers into events:

        questions = [{"name": "door", "ask": "is the door open?", "choose": ["yes", "no"], "rule": [{"is": "yes"}]}]
        with palmtop.Watch(model, questions, budget="300ms") as watch:
            for frame in frames:
                for record in watch.frame(frame):
                    print(record.question, record.text)

    The decoder runs only if something moved in a question's zone, or if the question is due for another reason. All
    questions that are due are answered together. Each answer is the one that Session.answer gives, bit for bit.

    A question is a dict with the keys of [[question]] in the configuration of `palmtop watch`, its rules a list of dicts at
    "rule". Further settings are those of the configuration: budget="300ms", every="2s", at_least_every="1m", gate={"pixels":
    False}, zone={"porch": [[0, 0], [1, 0], [1, 1]]}, camera=[{"name": "door"}, {"name": "yard"}]. Without cameras there is
    one, called "camera". Instead of questions and settings you can give the whole text of such a file as `toml`. ValueError
    says what is wrong with them.

    `budget` is the time from a frame's exposure to its answers. What did not fit is late and comes first next time.
    With all_answers=True there is a record for every answer, not only for those that change something. With
    recording=True frames come from a recording: rules go by their times, budget and latencies count from the call of
    frame(). `kv`, `threads`, `isa`, `image_side`, `filter`, `lazy_memory`, `cores` and `nice` are as in Model.session().

    One thread at a time may use a watch; otherwise the call raises Busy. The exception is cancel().
    """

    def __init__(
        self,
        model: "Model",
        questions: Optional[Sequence[Mapping[str, Any]]] = None,
        *,
        toml: Optional[str] = None,
        all_answers: bool = False,
        recording: bool = False,
        image_side: int = 8192,
        filter: Optional[str] = None,
        kv: str = "auto",
        threads: Optional[int] = None,
        isa: Optional[str] = None,
        lazy_memory: bool = False,
        cores: Sequence[int] = (),
        nice: Optional[int] = None,
        **settings: Any,
    ):
        if (questions is None) == (toml is None):
            raise ValueError("give either questions or toml")
        if toml is None:
            toml = _toml.text({**settings, "question": list(questions or ())})
        elif settings:
            raise ValueError(f"write {', '.join(settings)} into toml")
        self.model = model
        wanted = ((1, 256, 256, 1, 0), image_side, filter, kv, threads, isa, lazy_memory)
        self._native = _palmtop.Watch(model._native, toml, wanted, list(cores), nice, all_answers, recording)
        #: Bytes that the session takes, and that the gates of all cameras take beside it.
        self.session_bytes, self.gate_bytes = self._native.plan()

    def frame(
        self,
        picture: Any,
        camera: int = 0,
        *,
        time: Optional[float] = None,
        format: Optional[str] = None,
        rotation: int = 0,
    ) -> List[Record]:
        """Takes a frame of camera number `camera`, in the order of the configuration, and returns what follows from it,
        oldest record first. Looks at the frame, asks what is due, and returns when that is done or the budget has passed.

        `picture`, `format` and `rotation` are as in Session.encode(). `time` is when the frame was exposed, in seconds of
        time.monotonic(); None is now. With recording=True it is seconds from the beginning of the recording.

        Raises Cancelled after cancel(); the records of answers that came before that are returned by the next call."""
        taken = pixels_or_file(picture, format)
        ago = None
        if time is not None:
            ago = -time if self._native.recording else clock.monotonic() - time
        if isinstance(taken, bytes):
            raw = self._native.frame_file(camera, taken, ago)
        else:
            raw = self._native.frame_pixels(camera, *taken, rotation, ago)
        return [_record(one) for one in raw]

    def end(self) -> List[Record]:
        """Ends all events, at the time of the last frame, and returns their records. Later frames may begin new ones."""
        return [_record(one) for one in self._native.end()]

    def command(self, line: str) -> None:
        """Obeys a line: "ask" asks all questions about their camera's next frame, whether or not anything moves; "ask NAME"
        asks one; "pause" looks at nothing until "resume"."""
        self._native.command(line)

    def set_prompt(self, question: str, prompt: str) -> None:
        """Gives a question another prompt, from the next frame on. What its answers are made of stays: one with `choose` is
        answered with one of its choices."""
        self._native.set_prompt(question, prompt)

    def cancel(self) -> None:
        """Stops the call that is using this watch within about the time of one layer; callable from any thread. That call
        raises Cancelled, and so does every later call of frame() until reset_cancel()."""
        self._native.cancel()

    def reset_cancel(self) -> None:
        """Clears the request to cancel, so that later frames are looked at again."""
        self._native.reset_cancel()

    @property
    def counts(self) -> Counts:
        """What it has done so far."""
        numbers, *latencies = self._native.counts()
        return Counts(*numbers, *latencies)

    def close(self) -> List[Record]:
        """Ends all events and returns their records. Frees the session; further calls raise Error, except this one."""
        return [_record(one) for one in self._native.close()]

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _record(raw: _palmtop._Given) -> Union[AnswerRecord, EventRecord]:
    common, answer, event, objects = raw
    camera, question, picture, unix_time, since_start, latency, text, (width, height), json = common
    masks = None
    if any(mask is not None for *_, mask in objects):
        masks = np.zeros((len(objects), height, width), dtype=bool)
        for whole, (*_, mask) in zip(masks, objects):
            if mask is not None:
                x, y, w, h, pixels = mask
                whole[y : y + h, x : x + w] = np.frombuffer(pixels, dtype=np.uint8).reshape(h, w)
    fields: Dict[str, Any] = dict(
        camera=camera,
        question=question,
        picture=picture,
        unix_time=unix_time,
        since_start=since_start,
        latency=latency,
        text=text,
        labels=[label for label, *_ in objects],
        scores=np.array([np.nan if score is None else score for _, score, *_ in objects], dtype=np.float32),
        boxes=np.array([box for _, _, box, *_ in objects], dtype=np.float32).reshape(-1, 4),
        tracks=[track for *_, track, _ in objects],
        masks=masks,
        picture_size=(width, height),
        json=json,
    )
    if event is not None:
        id, phase, rule, lasted, track, label = event
        return EventRecord(**fields, id=id, phase=phase, rule=rule, lasted=lasted, track=track, label=label)
    assert answer is not None, "what is no event is an answer"
    changed, score = answer
    return AnswerRecord(**fields, changed=changed, score=score)
