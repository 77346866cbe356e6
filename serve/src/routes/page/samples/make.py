"""Makes the page's sample pictures of those in the folder demo. Pillow 11 or newer; run it here."""

from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
DEMO = HERE.parents[4] / "demo"

for name in ("scene", "day", "menu"):
    Image.open(DEMO / f"{name}.png").convert("RGB").save(HERE / f"{name}.webp", quality=80, method=6)
