"""Greedy answers, as transformers and palmtop give them."""

import torch
import torch.nn.functional as F

import vocabulary as v
from decoder import attention_mask, rotations
from paligemma import PaliGemma
from sizes import PATCHES, TEXT

HIDDEN = -1e9


@torch.no_grad()
def answers(model: PaliGemma, patches: torch.Tensor, prompts: list[str], most: int = 96) -> list[str]:
    """One answer to one prompt about each row of patches u8 [B, 256, 588]."""
    decoder = model.decoder
    encoded = [(v.BOS, *v.encode(prompt + "\n")) for prompt in prompts]
    lengths = torch.tensor([len(e) for e in encoded])
    batch, longest = len(prompts), int(lengths.max())
    ids = torch.zeros(batch, longest, dtype=torch.long)
    for row, tokens in enumerate(encoded):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    there = torch.arange(longest) < lengths[:, None]
    mask = attention_mask(there.long(), there, exact=True)
    embed = lambda ids: F.embedding(ids, decoder.embedding) * TEXT.hidden**0.5

    x = torch.cat([decoder.projector(model.tower(patches)), embed(ids)], 1)
    places = torch.arange(PATCHES + longest).expand(batch, -1)
    past = [[] for _ in decoder.layers]
    for layer, kept in zip(decoder.layers, past):
        x = layer(x, rotations(places), mask, True, kept)
    x = x[torch.arange(batch), PATCHES + lengths - 1]
    seen = torch.cat([torch.zeros(batch, PATCHES), torch.zeros(batch, longest).masked_fill(~there, HIDDEN)], 1)
    said = [[] for _ in prompts]
    done = torch.zeros(batch, dtype=torch.bool)
    for step in range(most):
        token = (decoder.norm(x) @ decoder.embedding.mT).argmax(-1)
        done |= token == v.EOS
        if done.all():
            break
        for row in torch.nonzero(~done)[:, 0].tolist():
            said[row].append(int(token[row]))
        seen = torch.cat([seen, torch.zeros(batch, 1)], 1)
        x = embed(token[:, None])
        rotation = rotations((PATCHES + lengths + step)[:, None])
        for layer, kept in zip(decoder.layers, past):
            x = layer(x, rotation, seen[:, None], True, kept)
        x = x[:, 0]
    return [v.decode(tokens) for tokens in said]
