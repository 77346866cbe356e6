"""A robot's loop: it looks out for things in the pictures of its camera, and knows within its budget whether they are there.

    python robot.py MODEL FOLDER MILLISECONDS_A_FRAME LABEL...

The frames are the pictures of a folder, in the order of their names. With a camera and OpenCV they come from
`cv2.VideoCapture(0).read()`, and go into `watch.frame(frame, format="bgr")`.

A frame in which nothing moves costs next to nothing. One in which something does is looked at, and the call returns when the
answer is there or the budget has passed; a robot that must not drive blind then stops."""

import sys
import time
from pathlib import Path

import palmtop


def tell(records):
    """What came and went."""
    for record in records:
        if isinstance(record, palmtop.EventRecord):
            where = ""
            if record.phase == "begin" and record.track in record.tracks:
                box = record.boxes[record.tracks.index(record.track)]
                where = " at {:.0f}, {:.0f} to {:.0f}, {:.0f}".format(*box)
            print(f"frame {record.picture}: {record.label} {'comes' if record.phase == 'begin' else 'goes'}{where}")


_, path, folder, budget, *labels = sys.argv
questions = [{"name": "ahead", "detect": labels}]
late = 0
with palmtop.Watch(palmtop.Model(path), questions, budget=f"{budget}ms") as watch:
    frames = sorted(Path(folder).iterdir())
    for number, frame in enumerate(frames):
        # If you know when the frame was exposed, say so: the budget counts from there.
        tell(watch.frame(frame, time=time.monotonic()))
        counts = watch.counts
        if counts.late > late:
            print(f"frame {number}: late, the robot stops")
        late = counts.late
    tell(watch.end())
    print(f"{len(frames)} frames, {counts.answers} answers, {counts.late} late")
