"""Composes scenes: up to five objects that may hide a part of each other, and often a word."""

from dataclasses import dataclass, field
from typing import Callable

import numpy as np
from PIL import Image, ImageDraw

from . import backgrounds, colors, lettering, sprites
from .backgrounds import Background
from .classes import CLASSES

SIDE = 224
OBJECTS_MAX = 5
VISIBLE_MIN = 0.65  # of an object's pixels
BOX_MARGIN = 2


@dataclass
class Thing:
    """An object in the picture; pixels count from the upper left."""

    index: int  # in CLASSES
    box: tuple[int, int, int, int] = (0, 0, 0, 0)  # y1, x1, y2, x2 of what is visible, ends exclusive
    mask: np.ndarray = field(default=None, repr=False)  # bool [y2 - y1, x2 - x1]

    @property
    def name(self) -> str:
        return CLASSES[self.index].name

    @property
    def center(self) -> tuple[float, float]:
        y1, x1, y2, x2 = self.box
        return (y1 + y2) / 2, (x1 + x2) / 2

    @property
    def area(self) -> int:
        return int(self.mask.sum())


@dataclass
class Text:
    text: str
    color: str
    box: tuple[int, int, int, int]  # y1, x1, y2, x2 of the ink
    letters: list[tuple[float, float]]  # left and right edge of each letter


@dataclass
class Scene:
    pixels: np.ndarray  # u8 [side, side, 3]
    owner: np.ndarray  # u8 [side, side]: 0, or 1 + index in `things` of what is seen there
    background: Background
    things: list[Thing]
    texts: list[Text]

    @property
    def text(self) -> Text | None:
        """What is written, in a scene that has at most one text."""
        return self.texts[0] if self.texts else None


Writer = Callable[[np.random.Generator], str]


def compose(rng: np.random.Generator, write: Writer, side: int = SIDE) -> Scene:
    """A scene of `side` pixels a side with at least one object and at most one text; `write` gives the words."""
    while True:
        scene = _compose(_pick_classes(rng), int(rng.random() < 0.6), rng, write, side)
        if scene.things:
            return scene


def compose_page(rng: np.random.Generator, write: Writer, side: int = SIDE) -> Scene:
    """A picture with much to read, to learn letters from."""
    return _compose(_pick_classes(rng)[: int(rng.integers(3))], int(rng.integers(3, 8)), rng, write, side)


def _compose(indices: list[int], texts: int, rng, write, side) -> Scene:
    unit = side / SIDE
    background = _pick_background(indices, rng)
    canvas = Image.fromarray(backgrounds.paint(background, side, rng))
    written: list[Text] = []
    for _ in range(texts):
        if text := _write(canvas, write(rng), written, unit, rng):
            written.append(text)
    owner = np.zeros((side, side), np.uint8)
    things: list[Thing] = []
    seen: list[list[int]] = []
    for index in indices:
        if _place(canvas, owner, index, 1 + len(things), seen, written, len(indices), unit, rng):
            things.append(Thing(index))
    for number, thing in enumerate(things, 1):
        mine = owner == number
        rows, columns = np.flatnonzero(mine.any(1)), np.flatnonzero(mine.any(0))
        y1, y2, x1, x2 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        thing.box, thing.mask = (y1, x1, y2, x2), mine[y1:y2, x1:x2]
    return Scene(np.asarray(canvas), owner, background, things, written)


def _pick_classes(rng) -> list[int]:
    count = int(rng.choice([1, 2, 3, 4, 5], p=[0.22, 0.24, 0.22, 0.17, 0.15]))
    distinct = count if rng.random() < 0.45 else int(rng.integers(1, count + 1))
    kinds = rng.choice(len(CLASSES), distinct, replace=False)
    extra = rng.choice(kinds, count - distinct)
    return [int(i) for i in rng.permutation(np.concatenate([kinds, extra]))]


def _pick_background(indices, rng) -> Background:
    kind = backgrounds.pick_kind(rng)
    if not backgrounds.has_color(kind):
        return Background(kind, None)
    for _ in range(20):
        color = colors.NAMES[rng.integers(len(colors.NAMES))]
        if all(colors.distance(colors.COLORS[color], sprites.mean_color(i)) > 55 for i in indices):
            break
    return Background(kind, color)


def _write(canvas, word, others, unit, rng) -> Text | None:
    """Draws a word on the picture itself or on a plate, away from the other texts."""
    side = canvas.size[0]
    drawn = lettering.draw(word, lettering.pick_typeface(rng), round(rng.uniform(24, 42) * unit))
    width, height = drawn.ink.size
    pad = round(rng.uniform(5, 10) * unit)
    if width + 2 * pad >= side:
        return None
    for _ in range(8):
        x = int(rng.integers(pad, side - width - pad))
        y = int(rng.integers(pad, side - height - pad))
        if not any(_touch((y, x, y + height, x + width), other.box, 2 * pad) for other in others):
            break
    else:
        return None
    ground = np.asarray(canvas, np.float32)[y : y + height, x : x + width].reshape(-1, 3).mean(0)
    plate = None
    if rng.random() < 0.5:
        ground = colors.shade(colors.NAMES[rng.integers(len(colors.NAMES))], rng)
        plate = tuple(int(v) for v in ground)
    contrasting = [n for n in colors.NAMES if colors.distance(colors.COLORS[n], ground) > 95]
    if not contrasting:
        return None
    color = contrasting[rng.integers(len(contrasting))]
    draw = ImageDraw.Draw(canvas)
    if plate:
        draw.rounded_rectangle((x - pad, y - pad, x + width + pad, y + height + pad), pad, fill=plate)
    canvas.paste(tuple(int(v) for v in colors.shade(color, rng, 6)), (x, y), drawn.ink)
    letters = [(left + x, right + x) for left, right in drawn.letters]
    return Text(word, color, (y, x, y + height, x + width), letters)


def _place(canvas, owner, index, number, seen, texts, count, unit, rng) -> bool:
    """Pastes one more object where it hides no word and not too much of the others.

    `seen` has for each object how many of its pixels there were at first and are left.
    """
    side = owner.shape[0]
    largest = 112 if count <= 3 else 88
    for attempt in range(16):
        if attempt % 4 == 0:
            length = float(np.exp(rng.uniform(np.log(42), np.log(largest)))) * unit
            sprite = sprites.draw(
                index, length, rng.uniform(-30, 30), bool(rng.integers(2)), float(rng.uniform(0.85, 1.1))
            )
            width, height = sprite.size
            opaque = np.asarray(sprite)[..., 3] > 127
        x, y = int(rng.integers(0, side - width)), int(rng.integers(0, side - height))
        if any(_touch((y, x, y + height, x + width), text.box, 4 * unit) for text in texts):
            continue
        below = owner[y : y + height, x : x + width]
        hidden = np.bincount(below[opaque], minlength=number)[1:]
        if any(left - lost < VISIBLE_MIN * total for (total, left), lost in zip(seen, hidden)):
            continue
        canvas.paste(sprite, (x, y), sprite)
        below[opaque] = number
        for entry, lost in zip(seen, hidden):
            entry[1] -= int(lost)
        seen.append([int(opaque.sum())] * 2)
        return True
    return False


def _touch(a, b, margin) -> bool:
    return a[0] < b[2] + margin and b[0] < a[2] + margin and a[1] < b[3] + margin and b[1] < a[3] + margin
