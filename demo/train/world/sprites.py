"""Pictures of the classes, cut from Noto Color Emoji, at any size and angle."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from .classes import CLASSES

EMOJI_FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
BITMAP_SIZE = 109  # the only size that the font has


@lru_cache(None)
def original(index: int) -> Image.Image:
    """The emoji as the font has it, cropped to what is not transparent."""
    font = ImageFont.truetype(EMOJI_FONT, BITMAP_SIZE)
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((8, 8), CLASSES[index].emoji, font=font, embedded_color=True)
    return canvas.crop(canvas.getbbox())


@lru_cache(None)
def mean_color(index: int) -> tuple[float, float, float]:
    pixels = np.asarray(original(index), np.float32).reshape(-1, 4)
    weights = pixels[:, 3:]
    return tuple((pixels[:, :3] * weights).sum(0) / weights.sum())


def draw(index: int, side: float, angle: float, mirrored: bool, brightness: float) -> Image.Image:
    """RGBA picture of a class whose longer side had `side` pixels before it was turned by `angle` degrees."""
    image = original(index)
    scale = side / max(image.size)
    size = tuple(max(1, round(s * scale)) for s in image.size)
    image = image.resize(size, Image.BICUBIC)
    if mirrored:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    if brightness != 1.0:
        alpha = image.getchannel("A")
        image = ImageEnhance.Brightness(image).enhance(brightness)
        image.putalpha(alpha)
    image = image.rotate(angle, Image.BICUBIC, expand=True)
    return image.crop(image.getbbox())
