"""Words drawn in several typefaces, with the box of every letter."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from . import fonts

TYPEFACES = [
    f"{name}.ttf"
    for name in [
        "dejavu/DejaVuSans", "dejavu/DejaVuSans-Bold", "dejavu/DejaVuSerif-Bold", "dejavu/DejaVuSansMono-Bold",
        "liberation/LiberationSans-Regular", "liberation/LiberationSans-Bold", "liberation/LiberationSerif-Bold",
        "liberation/LiberationMono-Bold", "freefont/FreeSerifBold", "freefont/FreeSansBold",
    ]
]


class Lettering(NamedTuple):
    ink: Image.Image  # mode L, cropped to the ink
    letters: list[tuple[float, float]]  # left and right edge of each letter, in columns of `ink`


def draw(text: str, typeface: str, size: int) -> Lettering:
    font = fonts.load(typeface, size)
    left, top, right, bottom = font.getbbox(text)
    ink = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(ink).text((-left, -top), text, font=font, fill=255)
    edges = [font.getlength(text[:i]) - left for i in range(len(text) + 1)]
    return Lettering(ink, list(zip(edges[:-1], edges[1:])))


def pick_typeface(rng: np.random.Generator) -> str:
    return TYPEFACES[rng.integers(len(TYPEFACES))]
