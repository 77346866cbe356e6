"""The sizes of the model, in one place. The weights end up as about eight megabytes of int8."""

from types import SimpleNamespace

IMAGE = 224
PATCH = 14
GRID = IMAGE // PATCH
PATCHES = GRID * GRID

VISION = SimpleNamespace(hidden=256, intermediate=768, layers=6, heads=4, norm_eps=1e-6)
TEXT = SimpleNamespace(
    hidden=256, intermediate=512, layers=4, heads=4, kv_heads=1, head_dim=64, norm_eps=1e-6, rope_theta=10000.0
)
