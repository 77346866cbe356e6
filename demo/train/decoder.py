"""The decoder: Gemma 1 as transformers computes it, over pictures and several texts about each.

A row of the batch is a picture's 256 features and a line of texts. Every text sees the picture and itself: its prompt
both ways, its answer as far as it has come. In the model as it is run, the picture's rows see the prompt too
(`exact`), so each text needs a row of its own. Without that, all texts about a picture share its rows, which is
several times faster and teaches nearly the same: training begins so and ends exact.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

import vocabulary
from sizes import PATCHES, TEXT, VISION


class RmsNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(TEXT.hidden))

    def forward(self, x):
        x32 = x.float()
        x32 = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + TEXT.norm_eps)
        return (x32 * (1 + self.weight.float())).to(x.dtype)


class DecoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        width, inner, head = TEXT.hidden, TEXT.intermediate, TEXT.head_dim
        self.attention_norm, self.mlp_norm = RmsNorm(), RmsNorm()
        self.q = nn.Linear(width, TEXT.heads * head, bias=False)
        self.k = nn.Linear(width, TEXT.kv_heads * head, bias=False)
        self.v = nn.Linear(width, TEXT.kv_heads * head, bias=False)
        self.out = nn.Linear(TEXT.heads * head, width, bias=False)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x, rotation, mask, exact: bool, past: list | None = None, first: int = 0):
        """What becomes of the rows from `first` on; those before are only looked at.

        `past` holds keys and values of earlier calls and takes up those of this one.
        """
        x = x[:, first:] + self.out(self.attend(self.attention_norm(x), rotation, mask, exact, past, first))
        gate, up = F.linear(self.mlp_norm(x), torch.cat([self.gate.weight, self.up.weight])).chunk(2, -1)
        return x + self.down(F.gelu(gate, approximate="tanh") * up)

    def attend(self, x, rotation, mask, exact, past, first):
        batch, length, _ = x.shape
        heads, head = TEXT.heads, TEXT.head_dim
        q = self.q(x[:, first:]).view(batch, length - first, heads, head)
        k, v = F.linear(x, torch.cat([self.k.weight, self.v.weight])).chunk(2, -1)
        q = rotate(q, rotation[:, first:, None]) * head**-0.5
        k = rotate(k, rotation)
        if past is not None:
            past.append((k, v))
            k, v = (torch.cat(parts, 1) for parts in zip(*past))
        if exact or first:
            return self._mix(q, k, v, mask[:, first:])
        # The picture's rows see the picture only: a quarter of the scores need not be made.
        picture = self._mix(q[:, :PATCHES], k[:, :PATCHES], v[:, :PATCHES], None)
        return torch.cat([picture, self._mix(q[:, PATCHES:], k, v, mask[:, PATCHES:])], 1)

    def _mix(self, q, k, v, mask):
        """All heads share one key: their queries are rows of one product."""
        batch, length, heads, head = q.shape
        scores = (q.reshape(batch, length * heads, head) @ k.mT).view(batch, length, heads, -1)
        if mask is not None:
            scores = scores + mask[:, :, None]
        weights = torch.softmax(scores, -1).view(batch, length * heads, -1)
        return (weights @ v).view(batch, length, heads * head)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.projector = nn.Linear(VISION.hidden, TEXT.hidden)
        self.embedding = nn.Parameter(first_embedding())
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(TEXT.layers))
        self.norm = RmsNorm()
        for layer in self.layers:
            for linear in (layer.q, layer.k, layer.v, layer.out, layer.gate, layer.up, layer.down):
                nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            with torch.no_grad():
                layer.out.weight.mul_(0.5)
                layer.down.weight.mul_(0.5)

    def forward(self, features, ids, positions, mask, wanted, exact: bool):
        """Logits [M, vocabulary] of the places `wanted` (i64 [M], in the flat text). Features are [B, 256, width].

        `ids` and `positions` are [B, T], `mask` is [B, 256 + T, 256 + T], 0 or minus infinity.
        """
        texts = F.embedding(ids, self.embedding) * TEXT.hidden**0.5
        x = torch.cat([self.projector(features), texts], 1)
        pictures = torch.arange(PATCHES, device=x.device).expand(len(x), -1)
        rotation = rotations(torch.cat([pictures, positions], 1)).to(x.dtype)
        for layer in self.layers[:-1]:
            x = layer(x, rotation, mask, exact)
        # Nobody asks what the last layer makes of the picture's rows.
        x = self.layers[-1](x, rotation, mask, exact, first=PATCHES).flatten(0, 1)[wanted]
        return self.norm(x) @ self.embedding.mT


def rotations(positions):
    """cos and sin of every position, [B, S, 2, head_dim / 2]."""
    half = TEXT.head_dim // 2
    frequencies = TEXT.rope_theta ** (-torch.arange(half, dtype=torch.float32, device=positions.device) / half)
    angles = positions[..., None].float() * frequencies
    return torch.stack([angles.cos(), angles.sin()], -2)


def rotate(x, rotation):
    first, second = x.chunk(2, -1)
    cos, sin = rotation[..., 0, :], rotation[..., 1, :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def first_embedding() -> torch.Tensor:
    """Rows of length about 1. Places that are near each other begin alike."""
    width = TEXT.hidden
    rows = torch.randn(vocabulary.SIZE, width) * width**-0.5
    place = torch.arange(vocabulary.LOCATIONS) / vocabulary.LOCATIONS
    frequencies = torch.exp(torch.linspace(math.log(0.5), math.log(24), width // 2)) * 2 * math.pi
    phases = torch.rand(width // 2) * 2 * math.pi
    angles = place[:, None] * frequencies + phases
    waves = torch.cat([angles.cos(), angles.sin()], -1) * width**-0.5
    first = vocabulary.FIRST_LOCATION
    rows[first : first + vocabulary.LOCATIONS] = 0.9 * waves + 0.3 * rows[first : first + vocabulary.LOCATIONS]
    return rows


def attention_mask(segments, prompts, exact: bool, dtype=torch.float32):
    """Who sees whom, [B, 256 + T, 256 + T], 0 or minus infinity.

    `segments` i64 [B, T] numbers the texts of a row from 1, 0 fills up; `prompts` bool [B, T] marks prompts.
    """
    batch, length = segments.shape
    places = torch.arange(length, device=segments.device)
    same = segments[:, :, None] == segments[:, None, :]
    sees = same & (prompts[:, None, :] | (places[None, :, None] >= places[None, None, :]))
    allowed = torch.zeros(batch, PATCHES + length, PATCHES + length, dtype=torch.bool, device=segments.device)
    allowed[:, :, :PATCHES] = True
    allowed[:, PATCHES:, PATCHES:] = sees
    if exact:
        allowed[:, :PATCHES, PATCHES:] = (prompts & (segments > 0))[:, None, :]
    hidden = -1e4 if dtype == torch.bfloat16 else -1e9
    return torch.zeros(allowed.shape, dtype=dtype, device=segments.device).masked_fill_(~allowed, hidden)
