"""The watch of the package: python test_watch.py MODEL BUS EMPTY, the demo's model, its picture with a bus in it, and one
without. Prints the records of a film of them as JSON, to be compared."""

import json
import sys
import threading
import time

import numpy as np

import palmtop
from palmtop import _toml

model_path, bus_path, empty_path = sys.argv[1:]
model = palmtop.Model(model_path)
# The model that is inside of the package is this one.
inside = palmtop.Model.demo()
assert isinstance(inside, palmtop.Model) and inside.vocabulary == model.vocabulary and inside.has_mask_decoder
captions = []
for one in (model, inside):
    session = one.session(new_tokens=40)
    captions.append(session.answer(session.encode(bus_path), "caption en"))
assert captions[0].text == captions[1].text and "panda" in captions[1].text
assert captions[0].probabilities.tobytes() == captions[1].probabilities.tobytes()

DETECT = [{"name": "traffic", "detect": ["bus", "tree"]}]
OCR = [{"name": "text", "ocr": True}]
NO_GATES = {"pixels": False, "features": False}


def refused(kind, call, says=""):
    try:
        call()
    except kind as error:
        assert says in str(error) and str(error), f"{says} is not in: {error}"
    else:
        raise AssertionError(f"not refused with {kind.__name__}")


# Questions are TOML, whatever is in them.
hard = {"a\"b\\": ["x\ny\t\x01\x7f é😀", True, 2, 1.5, {"k": []}], "none": ()}
try:
    import tomllib
except ImportError:
    print("SKIPPED: the TOML of questions, read by Python: it is older than 3.11", file=sys.stderr)
else:
    assert tomllib.loads(_toml.text(hard)) == {**hard, "none": []}
refused(TypeError, lambda: palmtop.Watch(model, [{"ocr": None}]), "NoneType")
refused(TypeError, lambda: palmtop.Watch(model, [{1: True}]), "int")
refused(ValueError, lambda: palmtop.Watch(model), "either")
refused(ValueError, lambda: palmtop.Watch(model, OCR, toml=""), "either")
refused(ValueError, lambda: palmtop.Watch(model, toml="[[question]]\nocr = true", budget="1s"), "budget")
refused(ValueError, lambda: palmtop.Watch(model, []), "no question")
refused(ValueError, lambda: palmtop.Watch(model, OCR, filter="nearest"), "nearest")
refused(ValueError, lambda: palmtop.Watch(model, [{"oc": True}]), "oc")
refused(ValueError, lambda: palmtop.Watch(model, OCR, budget="soon"), "soon")
refused(ValueError, lambda: palmtop.Watch(model, OCR, colour="red"), "colour")
refused(ValueError, lambda: palmtop.Watch(model, OCR, kv="f13"), "f13")

# A film: records are those of the Rust library.
questions = [
    {"name": "traffic", "detect": ["bus", "tree"], "at_least_every": "1s"},
    {"caption": "en"},
    {"name": "panda", "ask": "is there a panda?", "choose": ["yes", "no"], "rule": [{"is": "no"}]},
]
told = []
with palmtop.Watch(model, questions, recording=True) as watch:
    assert watch.session_bytes > 0 and watch.gate_bytes > 0
    for number in range(20):
        told += watch.frame(bus_path if number < 6 else empty_path, time=number * 0.2)
    told += watch.end()
    assert watch.end() == []
    counts = watch.counts
refused(palmtop.Error, lambda: watch.frame(bus_path), "closed")
refused(palmtop.Error, lambda: watch.counts, "closed")
assert watch.close() == []
assert counts.pictures == 20 and counts.late == 0 and counts.answers >= len(told) // 2
assert counts.still > 0 and counts.encoded < 20 and 0 < counts.latency_p50 <= counts.latency_p95 <= counts.latency_max
events = [record for record in told if isinstance(record, palmtop.EventRecord)]
answers = [record for record in told if isinstance(record, palmtop.AnswerRecord)]
assert len(events) + len(answers) == len(told) and counts.events == sum(event.phase == "begin" for event in events)
for record in told:
    line = json.loads(record.json)
    assert line["question"] == record.question and line["text"] == record.text and line["picture"] == record.picture
    assert line["camera"] == record.camera == "camera" and abs(line["since_start_ms"] - 200 * record.picture) < 1
    assert [o["label"] for o in line["objects"]] == record.labels and [o["track"] for o in line["objects"]] == record.tracks
    assert record.boxes.shape == (len(record.labels), 4) and record.boxes.dtype == record.scores.dtype == np.float32
    assert record.masks is None and record.latency > 0 and abs(record.unix_time - time.time()) < 3600
    print(record.json)
bus = next(event for event in events if event.label == "bus")
assert (bus.phase, bus.rule, bus.question, bus.lasted) == ("begin", "traffic", "traffic", None)
assert bus.picture == 0 and bus.track in bus.tracks and bus.picture_size == (448, 448)
gone = next(event for event in events if event.id == bus.id and event.phase == "end")
assert gone.label == "bus" and gone.lasted >= 1.2
assert all(answer.changed for answer in answers)
assert all((answer.score is not None) == (answer.question == "panda") for answer in answers)
session = model.session()
caption = session.answer(session.encode(bus_path), "caption en").text
assert next(answer.text for answer in answers if answer.question == "caption en") == caption

# Masks, for a model that decodes them.
if model.has_mask_decoder:
    with palmtop.Watch(model, [{"segment": "bus"}]) as watch:
        found = next(record for record in watch.frame(bus_path) if record.labels)
    assert found.masks.shape == (len(found.labels), 448, 448) and found.masks.any(axis=(1, 2)).all()

# Arrays, cameras, commands.
array = np.zeros((48, 64, 3), np.uint8)
cameras = [{"name": "door"}, {"name": "yard"}]
with palmtop.Watch(model, OCR, camera=cameras, gate=NO_GATES, all_answers=True, max_new_tokens=8) as watch:
    assert [record.camera for record in watch.frame(array)] == ["door"]
    (record,) = watch.frame(array, 1, format="bgr", rotation=90)
    assert (record.camera, record.picture, record.picture_size) == ("yard", 0, (48, 64))
    refused(ValueError, lambda: watch.frame(array, 2), "no camera 2")
    refused(OverflowError, lambda: watch.frame(array, -1))
    refused(ValueError, lambda: watch.frame(array, rotation=45))
    refused(ValueError, lambda: watch.frame(array, format="nv12"))
    refused(ValueError, lambda: watch.frame(array, time=float("nan")))
    refused(ValueError, lambda: watch.frame(array, time=-1e300))
    refused(palmtop.Error, lambda: watch.frame(b"no picture"))
    watch.command("pause")
    assert watch.frame(array) == []
    watch.command("resume")
    watch.command("ask text")
    watch.set_prompt("text", "caption en")
    assert len(watch.frame(array)) == 1
    refused(ValueError, lambda: watch.command("dance"), "dance")
    refused(ValueError, lambda: watch.command("ask nobody"), "text")
    refused(ValueError, lambda: watch.set_prompt("nobody", "ocr"), "text")
    refused(ValueError, lambda: watch.set_prompt("text", "x " * 5000), "room")
    watch.cancel()
    refused(palmtop.Cancelled, lambda: watch.frame(array))
    watch.reset_cancel()
    assert len(watch.frame(array, time=time.monotonic())) == 1

# A budget that is over before it begins.
with palmtop.Watch(model, OCR, budget="0s") as watch:
    assert watch.frame(array) == [] and watch.counts.late == 1 and watch.counts.latency_max is None


# While it looks, other threads of Python run: else none of them could find it busy, or stop it.
def look_until_cancelled(watch):
    try:
        while True:
            watch.frame(bus_path)
    except palmtop.Cancelled:
        pass


with palmtop.Watch(model, OCR, gate=NO_GATES) as watch:
    worker = threading.Thread(target=look_until_cancelled, args=(watch,))
    worker.start()
    busy = False
    while not busy:
        try:
            watch.counts
        except palmtop.Busy:
            busy = True
    watch.cancel()
    worker.join()
    watch.reset_cancel()
