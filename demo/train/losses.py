"""The loss of predicted tokens."""

from functools import lru_cache

import torch

import texts
import vocabulary as v
from sizes import IMAGE

# How places are blurred, in steps of 1/1024, and with what weight. A pixel of a training picture is 4.6 steps. The wide
# blur teaches early which places are near each other.
BLURS = [(4.0, 0.9), (24.0, 0.1)]


@lru_cache(None)
def _near_places(device: torch.device) -> torch.Tensor:
    """[1024, 1024]: what share of a target's weight its neighbours get, among the places that pixels have."""
    place = torch.arange(v.LOCATIONS)
    pixels = {min(v.LOCATIONS - 1, round(p * v.LOCATIONS / IMAGE)) for p in range(IMAGE + 1)}
    used = torch.zeros(v.LOCATIONS)
    used[list(pixels)] = 1
    used = torch.maximum(used[None], torch.eye(v.LOCATIONS))
    near = torch.zeros(v.LOCATIONS, v.LOCATIONS)
    for width, share in BLURS:
        weights = torch.exp(-(((place[:, None] - place) / width) ** 2) / 2) * used
        near += share * weights / weights.sum(1, keepdim=True)
    return near.to(device)


LOC = slice(v.FIRST_LOCATION, v.FIRST_LOCATION + v.LOCATIONS)


def is_location(ids):
    return (ids >= LOC.start) & (ids < LOC.stop)


def is_segment(ids):
    return (ids >= v.FIRST_SEGMENT) & (ids < v.FIRST_SEGMENT + v.SEGMENTS)


def answers(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Weighted mean of cross entropies; places count as nearly right beside the right one. Targets of -1 are passed."""
    log = torch.log_softmax(logits.float(), -1)
    known = targets >= 0
    ids = targets.clamp(min=0)
    exact = -log.gather(1, ids[:, None])[:, 0]
    targets_near = _near_places(log.device)[(ids - LOC.start).clamp(0, v.LOCATIONS - 1)]
    near = -(log[:, LOC] * targets_near).sum(-1)
    places, segments = is_location(ids), is_segment(ids)
    loss = torch.where(places, near, exact)
    weight = torch.full_like(loss, texts.WEIGHT)
    weight = torch.where(places, texts.LOCATION_WEIGHT, torch.where(segments, texts.SEGMENT_WEIGHT, weight)) * known
    return (loss * weight).sum() / weight.sum()


@torch.no_grad()
def accuracy(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Shares of tokens told right given the right ones before; places within two pixels are right."""
    said = logits.argmax(-1)
    known = targets >= 0
    places, segments = known & is_location(targets), known & is_segment(targets)
    words = known & ~places & ~segments
    close = (said - targets).abs() * IMAGE / v.LOCATIONS < 2.5
    found = {"words": (said == targets)[words], "places": close[places], "codes": (said == targets)[segments]}
    return {name: round(float(right.float().mean()), 4) for name, right in found.items() if len(right)}
