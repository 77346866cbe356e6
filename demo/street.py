#!/usr/bin/env python3
"""Makes demo/street.mjpeg, a film of a street in the demo model's world, and its truth, demo/street.json.

    python3 demo/street.py [--out FOLDER] [--pictures FOLDER] [--other SEED]

The camera hangs above the street and is never touched; its sensor is small and cheap. With --other it is another film,
in which who comes when is left to chance. Needs Python 3.11, numpy 2.4.6,
Pillow 13.0.0 and fonts-noto-color-emoji and fonts-dejavu-core of Debian 12; with these the film is the same to the
byte. demo/score_events.py compares the events of `palmtop watch` with the truth.
"""

import argparse
import io
import json
import pathlib
import sys
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "train"))
from world import lettering, sprites  # noqa: E402
from world.classes import INDEX  # noqa: E402

WIDTH, HEIGHT = 224, 168
RATE = 10  # pictures a second, as palmtop reads Motion JPEG
SECONDS = 112
SEED = 2026
JPEG_QUALITY = 38
# Standard deviation of a pixel's noise: of the sensor itself, and of light at the brightest level; in levels of 255.
READ_NOISE, SHOT_NOISE = 2.0, 4.0

PAVEMENT, ROAD = 93, 101  # where they begin, from the top
LAMP = (171, 38)  # the lamp's head
LAMP_REACH, LAMP_LIGHT = 37.0, 0.16


class Stop(NamedTuple):
    """Where an object's middle is at a time, in seconds and pixels; it rests there if the next stop is the same."""

    second: float
    x: float
    y: float


@dataclass
class Actor:
    """An object of the film."""

    label: str
    length: float  # pixels of its longer side
    stops: list[Stop]
    mirrored: bool = False  # emoji of cars and buses drive to the left
    steps: float = 0.0  # pixels by which it bobs as it walks
    sprite: Image.Image = field(init=False, repr=False)

    def __post_init__(self):
        self.sprite = sprites.draw(INDEX[self.label], self.length, 0.0, self.mirrored, 1.0)

    def corner(self, second: float) -> tuple[int, int] | None:
        """Where its sprite's upper left corner is; None before its first stop and from its last one on."""
        at = _between(self.stops, second)
        if at is None:
            return None
        (x, y), moves = at
        if moves and self.steps:
            y -= self.steps * abs(np.sin(2 * np.pi * 1.5 * second))
        return round(x - self.sprite.width / 2), round(y - self.sprite.height / 2)


LEFT, RIGHT = -52, WIDTH + 52  # outside of the picture
FAR, NEAR, WALK = 111, 138, 80  # middles of the lanes, and of those that walk

ACTORS = [
    # Those behind others first.
    Actor("house", 68, [Stop(0, 44, 54), Stop(SECONDS, 44, 54)]),
    Actor("tree", 64, [Stop(0, 193, 62), Stop(SECONDS, 193, 62)]),
    # A dog comes, sits for a while, and goes on.
    Actor(
        "dog", 42, [Stop(18, LEFT, WALK), Stop(21.5, 112, WALK), Stop(38, 112, WALK), Stop(41.5, RIGHT, WALK)], True, 2
    ),
    # Another one comes to see the cars.
    Actor(
        "dog", 42, [Stop(72, RIGHT, WALK), Stop(75.5, 102, WALK), Stop(86, 102, WALK), Stop(89.5, LEFT, WALK)], steps=2
    ),
    # A cat comes and stays.
    Actor("cat", 42, [Stop(94, RIGHT, WALK), Stop(97.5, 138, WALK), Stop(SECONDS, 138, WALK)], False, 2),
    # A car passes.
    Actor("car", 62, [Stop(6, RIGHT, FAR), Stop(11.5, LEFT, FAR)]),
    # A football, for which nobody asks.
    Actor("football", 38, [Stop(51, LEFT, FAR), Stop(56, RIGHT, FAR)], False, 6),
    # A car waits behind one that parks, and drives on.
    Actor("car", 60, [Stop(60, RIGHT, FAR), Stop(64, 163, FAR), Stop(74, 163, FAR), Stop(78, LEFT, FAR)]),
    # A bus stops while the dog sits there, and the next one does not.
    Actor("bus", 80, [Stop(20, RIGHT, NEAR), Stop(24, 105, NEAR), Stop(36, 105, NEAR), Stop(40, LEFT, NEAR)]),
    Actor("bus", 80, [Stop(103, RIGHT, NEAR), Stop(109, LEFT, NEAR)]),
    # A car parks under a cloud.
    Actor("car", 63, [Stop(58, LEFT, NEAR), Stop(62, 74, NEAR), Stop(84, 74, NEAR), Stop(88, RIGHT, NEAR)], True),
]


class Sign(NamedTuple):
    """What the shop's sign says from a second on."""

    second: float
    text: str


SIGNS = [Sign(0, "SHOP"), Sign(46.5, "SALE"), Sign(100.5, "SHOP")]
SIGN_AT, SIGN_SIZE = (119, 25), 23


def _between(stops: list[Stop], second: float):
    """The place at a time and whether it moves: it speeds up and slows down smoothly where it rests."""
    for i, (a, b) in enumerate(zip(stops, stops[1:])):
        if a.second <= second < b.second:
            break
    else:
        return None
    if a[1:] == b[1:]:
        return (a.x, a.y), False
    rested = i > 0 and stops[i - 1][1:] == a[1:]
    rests = i + 2 < len(stops) and stops[i + 2][1:] == b[1:]
    way = _hermite((second - a.second) / (b.second - a.second), 1.0 - rested, 1.0 - rests)
    return (a.x + way * (b.x - a.x), a.y + way * (b.y - a.y)), True


def _hermite(t: float, slope0: float, slope1: float) -> float:
    """From 0 to 1 with these slopes at the ends."""
    return (t**3 - 2 * t**2 + t) * slope0 + (3 * t**2 - 2 * t**3) + (t**3 - t**2) * slope1


def street(rng: np.random.Generator) -> Image.Image:
    """What stands behind all actors: sky, far hills, grass, a pavement and a road."""
    y = np.arange(HEIGHT, dtype=np.float32)[:, None, None]
    x = np.arange(WIDTH, dtype=np.float32)[None, :, None]
    sky = np.array([108, 166, 222], np.float32) + np.array([64, 46, 16], np.float32) * np.clip(y / 74, 0, 1)
    sky = sky + 9 * _clouds(rng, 4)
    hills = 70 + 5 * np.sin(x / 31 + 1.0) + 3 * np.sin(x / 13)
    far = np.array([112, 142, 118], np.float32) + 4 * _clouds(rng, 10)
    grass = np.array([104, 146, 74], np.float32) + 6 * _clouds(rng, 18)
    pixels = sky + (far - sky) * np.clip((y - hills) / 4 + 0.5, 0, 1)
    pixels = pixels + (grass - pixels) * np.clip((y - 81) / 4 + 0.5, 0, 1)
    paving = np.array([176, 170, 160], np.float32) + 3 * _clouds(rng, 28)
    asphalt = np.array([112, 112, 116], np.float32) + 3 * _clouds(rng, 28)
    pixels = np.where(y >= PAVEMENT, paving, pixels)
    pixels = np.where(y >= ROAD, asphalt, pixels)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    pen.line((0, 131, WIDTH, 131), (134, 134, 134), 2)
    pen.line((LAMP[0], LAMP[1], LAMP[0], PAVEMENT + 3), (74, 76, 80), 3)
    pen.ellipse((LAMP[0] - 5, LAMP[1] - 5, LAMP[0] + 5, LAMP[1] + 5), (250, 238, 190))
    return image.filter(ImageFilter.GaussianBlur(0.6))


def _clouds(rng, cells: int) -> np.ndarray:
    """Smooth noise of unit variance, [HEIGHT, WIDTH, 1]; `cells` bumps from left to right."""
    grid = rng.standard_normal((max(2, cells * HEIGHT // WIDTH), cells), np.float32)
    return np.asarray(Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.BICUBIC))[..., None]


def hang(canvas: Image.Image, text: str) -> tuple[int, int, int, int]:
    """Hangs up the sign; the box of its letters."""
    ink = lettering.draw(text, "dejavu/DejaVuSans-Bold.ttf", SIGN_SIZE).ink
    (x, y), pad = (SIGN_AT[0] - ink.width // 2, SIGN_AT[1] - ink.height // 2), 7
    box = (x, y, x + ink.width, y + ink.height)
    ImageDraw.Draw(canvas).rounded_rectangle(
        (box[0] - pad, box[1] - pad, box[2] + pad, box[3] + pad), pad, (245, 245, 240)
    )
    canvas.paste((36, 70, 170), (x, y), ink)
    return box


def light(second: float) -> np.ndarray:
    """The light's factor for every pixel, [HEIGHT, WIDTH, 1]."""
    x = np.arange(WIDTH, dtype=np.float32)[None, :]
    y = np.arange(HEIGHT, dtype=np.float32)[:, None]
    # A cloud with a soft edge covers the street within eight seconds, and leaves it again.
    shadow = lambda begin: np.clip(((second - begin) * 52 - x) / 200, 0, 1)
    factor = 1 - 0.28 * (shadow(43) - shadow(65)) + 0 * y
    # The lamp flickers, worst while the bus stands there.
    wild = 0.5 if 25 <= second < 34 else 0.08
    flicker = 1 + wild * np.sin(2 * np.pi * 3.3 * second) * np.cos(2 * np.pi * 1.27 * second)
    away = (x - LAMP[0]) ** 2 + (y - LAMP[1]) ** 2
    factor = factor + LAMP_LIGHT * flicker * np.exp(-away / (2 * LAMP_REACH**2))
    # The camera measures the light anew: too bright, and back within a second.
    if 68 <= second < 69.5:
        factor = factor * (1 + 0.3 * np.exp(-3 * (second - 68)))
    return factor[..., None]


def expose(scene: Image.Image, second: float, rng: np.random.Generator) -> Image.Image:
    """What the sensor makes of a scene."""
    bright = np.asarray(scene, np.float32) * light(second).astype(np.float32)
    spread = np.sqrt(READ_NOISE**2 + SHOT_NOISE**2 * np.clip(bright, 0, 255) / 255)
    noisy = bright + spread * rng.standard_normal(bright.shape, np.float32)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0", optimize=True, progressive=False)
    return out.getvalue()


def sign_of(second: float) -> str:
    return [sign.text for sign in SIGNS if sign.second <= second][-1]


def draw(background: Image.Image, second: float) -> Image.Image:
    canvas = background.copy()
    hang(canvas, sign_of(second))
    for actor in ACTORS:
        if corner := actor.corner(second):
            canvas.paste(actor.sprite, corner, actor.sprite)
    return canvas


def boxes(actor: Actor) -> dict[int, tuple[int, int, int, int]]:
    """For each picture that shows a part of an actor, the box of that part: left, top, right, bottom."""
    found = {}
    for number in range(SECONDS * RATE):
        if corner := actor.corner(number / RATE):
            x, y = corner
            box = max(x, 0), max(y, 0), min(x + actor.sprite.width, WIDTH), min(y + actor.sprite.height, HEIGHT)
            if box[0] < box[2] and box[1] < box[3]:
                found[number] = box
    return found


def is_whole(actor: Actor, box) -> bool:
    return (box[2] - box[0], box[3] - box[1]) == actor.sprite.size


def sparse(boxes: dict[int, tuple]) -> list[list[int]]:
    """Every tenth box, and those where it begins and ends to move: picture, left, top, right, bottom."""
    numbers = sorted(boxes)
    kept = [
        n
        for n in numbers
        if n in (numbers[0], numbers[-1])
        or (n % RATE == 0 and not boxes[n] == boxes.get(n - 1) == boxes.get(n + 1))
        or (boxes[n] == boxes.get(n - 1)) != (boxes[n] == boxes.get(n + 1))
    ]
    return [[n, *boxes[n]] for n in kept]


def truth() -> dict:
    """What there is to be seen. Times are seconds since the first picture."""
    last = SECONDS * RATE - 1
    objects = []
    for number, actor in enumerate(ACTORS, 1):
        seen = boxes(actor)
        whole = [n for n, box in sorted(seen.items()) if is_whole(actor, box)]
        objects.append(
            {
                "object": number,
                "label": actor.label,
                # In part from `comes` to `gone`, and whole from `whole_from` to `whole_to`.
                "comes": min(seen) / RATE,
                "whole_from": whole[0] / RATE,
                "whole_to": None if whole[-1] == last else whole[-1] / RATE,
                "gone": None if max(seen) == last else (max(seen) + 1) / RATE,
                "boxes": sparse(seen),
            }
        )
    return {
        "film": {"width": WIDTH, "height": HEIGHT, "pictures": SECONDS * RATE, "rate": RATE},
        "objects": objects,
        "sign": [{"second": sign.second, "text": sign.text} for sign in SIGNS],
        "events": sorted(_events(objects), key=lambda event: event["begin"]),
    }


def _events(objects: list[dict]) -> list[dict]:
    return [
        *(_event(rule, o["label"], o) for rule in RULES for o in objects if o["label"] in RULES[rule]),
        *(_event("bus", None, time) for time in _together(objects, "bus", 1)),
        *(_event("two cars", None, time) for time in _together(objects, "car", 2)),
        *(_event("sale", None, time) for time in _written("SALE")),
    ]


# Rules of demo/street.toml that follow each object of these labels.
RULES = {"traffic": ["car", "bus"], "animals": ["dog", "cat"], "standing": ["house", "tree"]}


def _event(rule: str, label: str | None, time: dict) -> dict:
    """Between which seconds the world changes: it is right to see it from the first on, and wrong not to from the
    second on. There is no end if it lasts longer than the film."""
    end = None if time["gone"] is None else [time["whole_to"], time["gone"]]
    return {"rule": rule, "label": label, "begin": [time["comes"], time["whole_from"]], "end": end}


def _together(objects: list[dict], label: str, count: int) -> list[dict]:
    """When so many objects of a label are there at once."""
    pictures = range(SECONDS * RATE)
    those = [o for o in objects if o["label"] == label]

    def there(begin: str, end: str, number: int) -> bool:
        is_in = lambda o: o[begin] * RATE <= number and (o[end] is None or number < o[end] * RATE)
        return sum(is_in(o) for o in those) >= count

    in_part = _spans([there("comes", "gone", n) for n in pictures])
    whole = _spans([there("whole_from", "whole_to", n) for n in pictures])
    found = []
    for begin, end in in_part:
        # What never is whole is too short to be an event.
        inside = [w for w in whole if begin <= w[0] and (end is None or w[0] < end)]
        if inside:
            found.append({"comes": begin, "whole_from": inside[0][0], "whole_to": inside[-1][1], "gone": end})
    return found


def _written(text: str) -> list[dict]:
    """When the sign says a text."""
    spans = _spans([sign_of(number / RATE) == text for number in range(SECONDS * RATE)])
    return [{"comes": begin, "whole_from": begin, "whole_to": end, "gone": end} for begin, end in spans]


def _spans(holds: list[bool]) -> list[tuple[float, float | None]]:
    """From when to when something holds, in seconds; without an end if it holds in the last picture."""
    edges = [n for n in range(len(holds)) if holds[n] != (n > 0 and holds[n - 1])]
    ends = [n / RATE for n in edges[1::2]] + [None] * (len(edges) % 2)
    return list(zip((n / RATE for n in edges[::2]), ends))


LENGTHS = {"car": 62, "bus": 80, "dog": 42, "cat": 42, "football": 38}


def leave_to_chance(rng: np.random.Generator):
    """Other actors than those of the film: one at a time in each lane and on the pavement."""
    ACTORS[2:] = [
        *_passers(rng, WALK, ["dog", "cat"]),
        *_passers(rng, FAR, ["car", "car", "football"]),
        *_passers(rng, NEAR, ["car", "bus"]),
    ]
    seconds = [0, *(round(rng.uniform(*between), 1) for between in ((20, 50), (60, 95)))]
    SIGNS[:] = [Sign(second, sign.text) for second, sign in zip(seconds, SIGNS)]


def _passers(rng, y: int, labels: list[str]) -> list[Actor]:
    """They pass, or stop on their way, one after the other."""
    found, second = [], 0.0
    while True:
        second += rng.uniform(2, 12)
        label, mirrored = labels[rng.integers(len(labels))], bool(rng.integers(2))
        begin, end = (LEFT, RIGHT) if mirrored else (RIGHT, LEFT)
        if rng.random() < 0.4:
            parts = [(begin, 0), (end, rng.uniform(5, 7))]
        else:
            x = rng.uniform(70, 150)
            parts = [(begin, 0), (x, rng.uniform(3.5, 4.5)), (x, rng.uniform(4, 20)), (end, rng.uniform(3.5, 4.5))]
        stops = []
        for x, seconds in parts:
            second += seconds
            stops.append(Stop(second, x, y))
        if second > SECONDS - 4:
            return found
        found.append(Actor(label, LENGTHS[label], stops, mirrored, 2.0 if y == WALK else 0.0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    parser.add_argument("--pictures", type=pathlib.Path, help="write every picture as a file of its own too")
    parser.add_argument("--other", type=int, metavar="SEED", help="another film, to be written to another folder")
    args = parser.parse_args()
    if args.other is not None:
        if args.out.resolve() == HERE:
            parser.error("--other needs --out: the folder of this script has the film of the tests")
        leave_to_chance(np.random.Generator(np.random.PCG64([SEED, args.other])))
    rng = np.random.Generator(np.random.PCG64(SEED))
    background = street(rng)
    film = []
    for number in range(SECONDS * RATE):
        second = number / RATE
        film.append(jpeg(expose(draw(background, second), second, rng)))
    (args.out / "street.mjpeg").write_bytes(b"".join(film))
    (args.out / "street.json").write_text(json.dumps(truth(), indent=1) + "\n")
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(film):
            (args.pictures / f"{number:04d}.jpg").write_bytes(picture)


if __name__ == "__main__":
    main()
