"""What callers hand in as pictures, as bytes that the native half takes."""

from __future__ import annotations

import os
from typing import Optional, Tuple, Union

import numpy as np

#: Bytes, format, width, height and bytes of a row.
Pixels = Tuple[bytes, str, int, int, int]


def pixels_or_file(picture, format: Optional[str]) -> Union[bytes, Pixels]:
    """The bytes of a picture file, or pixels. Copies them, so that nobody can change them while Python's lock is free."""
    if isinstance(picture, (str, os.PathLike)):
        with open(picture, "rb") as file:
            picture = file.read()
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return bytes(picture)
    if hasattr(picture, "convert") and hasattr(picture, "getbands"):
        picture, format = np.asarray(picture.convert("RGB")), "rgb"
    picture = np.asarray(picture)
    if picture.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8, not {picture.dtype}")
    height, width = picture.shape[:2] if picture.ndim >= 2 else (0, 0)
    channels = 1 if picture.ndim == 2 else picture.shape[2] if picture.ndim == 3 else 0
    allowed = {1: ["grey", "nv12", "nv21"], 3: ["rgb", "bgr"], 4: ["rgba", "bgra"]}.get(channels)
    if allowed is None:
        raise ValueError(f"an array of shape {picture.shape} is not a picture")
    format = format or allowed[0]
    if format not in allowed:
        raise ValueError(f"an array of shape {picture.shape} cannot be {format}: choose from {allowed}")
    if format in ("nv12", "nv21"):
        if height % 3 != 0 or width % 2 != 0:
            raise ValueError(f"{format} has height * 3 / 2 rows of an even width, not {picture.shape}")
        height = height // 3 * 2
    return picture.tobytes(), format, width, height, width * channels
