"""Backgrounds: plain, gradient and grainy ones with a colour that can be named, and photo-like ones without."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from .colors import shade

KINDS = ["plain", "gradient", "grain", "landscape", "blur"]
KIND_ODDS = [0.25, 0.2, 0.2, 0.2, 0.15]


class Background(NamedTuple):
    kind: str
    color: str | None  # None where no single name is right


def pick_kind(rng: np.random.Generator) -> str:
    return KINDS[rng.choice(len(KINDS), p=KIND_ODDS)]


def has_color(kind: str) -> bool:
    return kind in ("plain", "gradient", "grain")


def paint(background: Background, side: int, rng: np.random.Generator) -> np.ndarray:
    """u8 pixels [side, side, 3]."""
    painter = {"plain": _plain, "gradient": _gradient, "grain": _grain, "landscape": _landscape, "blur": _blur}
    pixels = painter[background.kind](background.color, side, rng)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _plain(color, side, rng):
    return np.broadcast_to(shade(color, rng), (side, side, 3))


def _gradient(color, side, rng):
    middle = shade(color, rng, 6)
    reach = rng.uniform(15, 35)
    ramp = _ramp(side, rng.uniform(0, 2 * np.pi))
    return middle + reach * ramp[..., None]


def _grain(color, side, rng):
    strength = rng.uniform(8, 22)
    noise = _clouds(side, rng, cells=int(rng.integers(3, 12)), channels=1)
    fine = rng.standard_normal((side, side, 1), np.float32)
    return shade(color, rng, 6) + strength * noise + rng.uniform(2, 8) * fine


def _landscape(_, side, rng):
    """A sky over ground, with blurred hills between."""
    sky_top = np.array([rng.uniform(60, 150), rng.uniform(120, 190), rng.uniform(190, 240)], np.float32)
    sky_low = sky_top + np.array([70, 50, 15], np.float32) * rng.uniform(0.4, 1)
    ground = np.array([(90, 130, 60), (190, 165, 110), (120, 120, 115), (70, 105, 90)][rng.integers(4)], np.float32)
    ground = ground + rng.uniform(-20, 20, 3).astype(np.float32)
    y = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    horizon = rng.uniform(0.35, 0.75)
    x = np.linspace(0, 2 * np.pi, side, dtype=np.float32)[None, :, None]
    hills = horizon + 0.06 * np.sin(x * rng.uniform(0.5, 2) + rng.uniform(0, 6)) * rng.uniform(0, 1)
    sky = sky_top + (sky_low - sky_top) * np.clip(y / horizon, 0, 1)
    sky = sky + 14 * np.clip(_clouds(side, rng, 4, 1), 0, 2)
    earth = ground * (0.75 + 0.5 * np.clip((y - horizon) / (1 - horizon), 0, 1))
    earth = earth + rng.uniform(6, 16) * _clouds(side, rng, int(rng.integers(8, 28)), 1)
    blend = np.clip((y - hills) * side / rng.uniform(2, 10) + 0.5, 0, 1)
    return sky + (earth - sky) * blend + 3 * rng.standard_normal((side, side, 1), np.float32)


def _blur(_, side, rng):
    """Out of focus: soft blobs of many colours, as behind a portrait."""
    small = _clouds(side // 4, rng, int(rng.integers(2, 6)), 3)
    base = rng.uniform(70, 180, 3).astype(np.float32)
    picture = np.clip(base + rng.uniform(25, 55) * small, 0, 255).astype(np.uint8)
    image = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(2)).resize((side, side), Image.BILINEAR)
    return np.asarray(image, np.float32) + rng.uniform(1, 5) * rng.standard_normal((side, side, 1), np.float32)


def _ramp(side, angle):
    """From -1 to 1 across the picture in the direction of `angle`."""
    line = np.linspace(-1, 1, side, dtype=np.float32)
    ramp = np.cos(angle) * line[None, :] + np.sin(angle) * line[:, None]
    return (ramp / np.abs(ramp).max()).astype(np.float32)


def _clouds(side, rng, cells, channels):
    """Smooth noise of unit variance, float [side, side, channels]; `cells` bumps along a side."""
    grid = rng.standard_normal((channels, cells + 1, cells + 1), np.float32)
    planes = [np.asarray(Image.fromarray(g).resize((side, side), Image.BICUBIC)) for g in grid]
    return np.stack(planes, -1)
