"""Checkpoints, the log and the clock of a training run."""

import json
import os
import time
from pathlib import Path

import torch

PAUSE = 8.0  # a step longer than this was a stopped process, not work


class Clock:
    """Items a second of running time. Time in which the process was stopped from outside does not count."""

    def __init__(self):
        self.last = time.monotonic()
        self.seconds, self.items = 0.0, 0

    def tick(self, items: int):
        now = time.monotonic()
        if now - self.last < PAUSE:
            self.seconds += now - self.last
            self.items += items
        self.last = now

    def rate(self) -> float:
        rate = self.items / self.seconds if self.seconds else 0.0
        self.seconds, self.items = 0.0, 0
        return round(rate, 1)


class Log:
    """Lines of JSON that the plot is drawn from."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, **entry):
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        print(" ".join(f"{k}={v}" for k, v in entry.items()), flush=True)


def save(path: Path, content: dict):
    """Writes a checkpoint in one move, so that a stop in between leaves the one before."""
    torch.save(content, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def trapezoid(step: int, warm: int, done: float, cool: float, peak: float) -> float:
    """Learning rate: up over `warm` steps, level, down to nothing over the last share `cool` of a run `done` so far."""
    return peak * min(1.0, (step + 1) / warm, max(0.0, (1 - done) / cool) if cool else 1.0)
