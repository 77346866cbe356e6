"""The codec of masks: 64 x 64 pixels to 16 codes of 128 and back, a VQ-VAE with the decoder of vae-oid.npz.

    python demo/train/mask_codec.py --run RUN        writes RUN/mask_codec.pt and RUN/vae-oid.npz

The masks of this world need fewer channels than the layout has. The network is trained narrow and padded with
zeros when it is written: the layout is complete, and the file packs well.
"""

import argparse
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from world import seeds, sprites
from world.classes import CLASSES

SIDE, GRID, CODES = 64, 4, 128
WIDTH = 32  # of the 512 and 128 channels that the layout has
UP = [(32, 32), (32, 32), (32, 16), (16, 16)]
FULL_UP = [(128, 128), (128, 64), (64, 32), (32, 16)]
EXAMPLES, STEPS, BATCH = 16000, 3000, 64
WARM = 200  # steps before codes are learnt
SEED = 7


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x):
        return x + self.net(x)


class MaskCodec(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 4, 2, 1), nn.ReLU(),
            Residual(64), nn.ReLU(), nn.Conv2d(64, WIDTH, 1),
        )
        self.register_buffer("codebook", torch.randn(CODES, WIDTH))
        ups = [layer for a, b in UP for layer in (nn.ConvTranspose2d(a, b, 4, 2, 1), nn.ReLU())]
        self.decoder = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 1), nn.ReLU(), Residual(WIDTH), Residual(WIDTH), *ups, nn.Conv2d(UP[-1][1], 1, 1)
        )

    def encode(self, masks):
        """f32 [N, 64, 64] of 0 or 1 to vectors [N, 4, 4, WIDTH]."""
        return self.encoder(masks[:, None] * 2 - 1).permute(0, 2, 3, 1)

    def codes(self, masks):
        """i64 [N, 16], row by row."""
        return self.nearest(self.encode(masks).flatten(1, 2))

    def nearest(self, vectors):
        return torch.cdist(vectors, self.codebook.expand(len(vectors), -1, -1)).argmin(-1)

    def decode(self, vectors):
        """[N, 4, 4, WIDTH] to [N, 64, 64], above 0 inside."""
        return self.decoder(vectors.permute(0, 3, 1, 2))[:, 0]

    def restore(self, codes):
        return self.decode(self.codebook[codes].unflatten(1, (GRID, GRID)))


def crop(mask: np.ndarray) -> np.ndarray:
    """A mask that fills its box, bool [height, width], as u8 [64, 64] of 0 or 1."""
    image = Image.fromarray(mask.astype(np.uint8) * 255).resize((SIDE, SIDE), Image.BILINEAR)
    return (np.asarray(image) > 127).astype(np.uint8)


def example(rng: np.random.Generator) -> np.ndarray:
    """The mask of a thing as scenes have them: turned, sometimes partly hidden."""
    mask = _opaque(rng)
    if rng.random() < 0.35:
        other = _opaque(rng)
        y = int(rng.integers(-other.shape[0] + 1, mask.shape[0]))
        x = int(rng.integers(-other.shape[1] + 1, mask.shape[1]))
        left = mask.copy()
        target = left[max(0, y) : y + other.shape[0], max(0, x) : x + other.shape[1]]
        target &= ~other[max(0, -y) :, max(0, -x) :][: target.shape[0], : target.shape[1]]
        if left.sum() >= 0.65 * mask.sum():
            rows, columns = np.flatnonzero(left.any(1)), np.flatnonzero(left.any(0))
            mask = left[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return crop(mask)


def _opaque(rng) -> np.ndarray:
    index = int(rng.integers(len(CLASSES)))
    sprite = sprites.draw(index, rng.uniform(42, 112), rng.uniform(-30, 30), bool(rng.integers(2)), 1.0)
    mask = np.asarray(sprite.getchannel("A")) > 127
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def train(steps: int) -> MaskCodec:
    torch.manual_seed(SEED)
    masks = torch.from_numpy(
        np.stack([example(seeds.stream(seeds.CODEC, SEED, i)) for i in range(EXAMPLES)])
    ).float()
    test, masks = masks[:1000], masks[1000:]
    codec = MaskCodec().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    counts, sums = torch.ones(CODES), codec.codebook.clone()
    for step in range(steps):
        batch = masks[torch.randint(len(masks), (BATCH,))]
        with torch.autocast("cpu", torch.bfloat16):
            vectors = codec.encode(batch).float()
        flat = vectors.detach().flatten(0, 2)
        if step == WARM:  # plain autoencoding until here; the codebook begins with vectors as they come
            codec.codebook.copy_(flat[torch.randperm(len(flat))[:CODES]])
            sums.copy_(codec.codebook)
        loss, decoded = 0.0, vectors
        if step >= WARM:
            chosen = torch.cdist(flat, codec.codebook).argmin(-1)
            quantized = codec.codebook[chosen].view_as(vectors)
            loss = 0.25 * F.mse_loss(vectors, quantized)
            decoded = vectors + (quantized - vectors).detach()
            move_codebook(codec, counts, sums, flat, chosen, step < steps * 0.7)
        with torch.autocast("cpu", torch.bfloat16):
            restored = codec.decode(decoded).float()
        loss = loss + F.mse_loss(restored, batch * 2 - 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            print(f"step {step + 1} loss {loss.item():.4f} held-out IoU {quality(codec, test):.4f}", flush=True)
    return codec


@torch.no_grad()
def move_codebook(codec, counts, sums, vectors, chosen, revive):
    """Codes follow the mean of what they stand for; ones that stand for nothing are placed anew."""
    hits = F.one_hot(chosen, CODES).float()
    counts.mul_(0.99).add_(hits.sum(0), alpha=0.01)
    sums.mul_(0.99).add_(hits.T @ vectors, alpha=0.01)
    codec.codebook.copy_(sums / counts.clamp(min=1e-3)[:, None])
    if revive:
        dead = counts < 0.05
        if dead.any():
            codec.codebook[dead] = vectors[torch.randint(len(vectors), (int(dead.sum()),))]
            sums[dead], counts[dead] = codec.codebook[dead], 1.0


@torch.no_grad()
def quality(codec, masks) -> float:
    """Mean intersection over union of masks and what is left of them after 16 codes."""
    restored = codec.restore(codec.codes(masks)) > 0
    wanted = masks > 0.5
    return float(((restored & wanted).sum((1, 2)) / (restored | wanted).sum((1, 2))).mean())


def to_npz(codec: MaskCodec, path: Path):
    """The decoder in the names and shapes of vae-oid.npz; unused channels are zero."""

    def padded(array, *shape):
        full = np.zeros(shape, np.float32)
        full[tuple(slice(n) for n in array.shape)] = array.detach().numpy()
        return full

    tensors = {"_vq_vae._embedding": padded(codec.codebook, CODES, 512)}
    state = dict(codec.decoder.named_parameters())

    def put(name, *shape, bias):
        tensors[f"decoder.{name}.weight"] = padded(state[f"{name}.weight"], *shape)
        tensors[f"decoder.{name}.bias"] = padded(state[f"{name}.bias"], bias)

    put("0", 128, 512, 1, 1, bias=128)
    for block in (2, 3):
        for layer, side in ((0, 3), (2, 3), (4, 1)):
            put(f"{block}.net.{layer}", 128, 128, side, side, bias=128)
    for layer, (a, b) in zip((4, 6, 8, 10), FULL_UP):
        put(str(layer), a, b, 4, 4, bias=b)
    put("12", 1, 16, 1, 1, bias=1)
    np.savez_compressed(path, **tensors)


@lru_cache(None)
def load(path: Path) -> MaskCodec:
    codec = MaskCodec()
    codec.load_state_dict(torch.load(path))
    return codec.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.run.mkdir(parents=True, exist_ok=True)
    codec = train(args.steps)
    torch.save(codec.state_dict(), args.run / "mask_codec.pt")
    to_npz(codec, args.run / "vae-oid.npz")


if __name__ == "__main__":
    main()
