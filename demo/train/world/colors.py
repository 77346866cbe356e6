"""Colours that have a name, far enough apart that nobody argues about it."""

import numpy as np

COLORS = {
    "red": (205, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (245, 220, 60),
    "green": (55, 160, 70),
    "blue": (50, 95, 210),
    "purple": (130, 60, 170),
    "pink": (245, 150, 190),
    "brown": (120, 75, 40),
    "gray": (140, 140, 140),
    "white": (245, 245, 245),
    "black": (22, 22, 22),
}
NAMES = list(COLORS)


def shade(name: str, rng: np.random.Generator, spread: float = 10.0) -> np.ndarray:
    """A colour that still deserves `name`: float RGB, each channel off by at most `spread`."""
    return np.clip(np.array(COLORS[name], np.float32) + rng.uniform(-spread, spread, 3), 0, 255)


def distance(a, b) -> float:
    """How different two RGB colours look, roughly: the eye weighs green most, blue least."""
    d = np.asarray(a, np.float32) - np.asarray(b, np.float32)
    return float(np.sqrt((d * d * (0.30, 0.59, 0.11)).sum()))
