"""Random streams that never meet: training, held-out and codec scenes differ in the first word of their seed."""

import numpy as np

TRAINING, HELD_OUT, CODEC = 1, 2, 3


def stream(domain: int, seed: int, index: int) -> np.random.Generator:
    """The random numbers of scene `index` of the set `seed`."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([domain, seed, index])))
