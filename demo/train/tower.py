"""The image encoder: SigLIP as transformers computes it, with the projections of a layer fused for speed."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from sizes import GRID, PATCH, PATCHES, VISION


class TowerLayer(nn.Module):
    def __init__(self):
        super().__init__()
        width, inner = VISION.hidden, VISION.intermediate
        self.norm1 = nn.LayerNorm(width, VISION.norm_eps)
        self.norm2 = nn.LayerNorm(width, VISION.norm_eps)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        x = x + self.out(self.attend(self.norm1(x)))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))

    def attend(self, x):
        batch, length, width = x.shape
        weight = torch.cat([self.q.weight, self.k.weight, self.v.weight])
        bias = torch.cat([self.q.bias, self.k.bias, self.v.bias])
        heads = F.linear(x, weight, bias).view(batch, length, 3, VISION.heads, width // VISION.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        # Written out: on CPUs with bf16 tiles two batched products beat the fused attention of torch.
        scores = (q * (width // VISION.heads) ** -0.5) @ k.transpose(-1, -2)
        return (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(batch, length, width)


class Tower(nn.Module):
    """u8 patches [B, 256, 588] (red, then green, then blue, each row by row) to features [B, 256, width]."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Linear(3 * PATCH * PATCH, VISION.hidden)
        self.position = nn.Parameter(grid_waves(VISION.hidden))
        self.layers = nn.ModuleList(TowerLayer() for _ in range(VISION.layers))
        self.norm = nn.LayerNorm(VISION.hidden, VISION.norm_eps)
        nn.init.normal_(self.patch.weight, std=0.02)
        for layer in self.layers:
            init_layer(layer)

    def forward(self, patches):
        x = self.patch(patches.to(self.patch.weight.dtype) / 127.5 - 1) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


def init_layer(layer: TowerLayer):
    """Queries start near keys and values near minus outputs, so that attention begins as one to like places."""
    width = VISION.hidden
    for linear in (layer.q, layer.k, layer.v, layer.out, layer.fc1, layer.fc2):
        nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        nn.init.zeros_(linear.bias)
    with torch.no_grad():
        layer.q.weight.mul_(0.7).add_(0.7 * layer.k.weight)
        layer.out.weight.mul_(0.5)
        layer.fc2.weight.mul_(0.5)


def grid_waves(width: int) -> torch.Tensor:
    """Sines and cosines of row and column: neighbours start alike."""
    place = torch.arange(GRID, dtype=torch.float32) / GRID
    frequencies = 2 ** torch.linspace(0, math.log2(GRID / 2), width // 8) * math.pi
    angles = place[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos(), (2 * angles).sin(), (2 * angles).cos()], -1)[:, : width // 2]
    rows = waves[:, None].expand(GRID, GRID, -1)
    columns = waves[None].expand(GRID, GRID, -1)
    return 0.5 * torch.cat([rows, columns], -1).reshape(PATCHES, width)
