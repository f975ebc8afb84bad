"""Gains between a norm and what reads it, where the one knows places that the other does not."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from tests.zoo.found import Written, linear, written
from tests.zoo.registry import add


def repeated(m: Written, x: Tensor) -> Tensor:
    """One value of three coordinates for two heads, each with a share of its own; normed together. (..., 2, 3)"""
    value, shares = linear(x, m.value), torch.tanh(linear(x, m.shares))
    return rms_norm(shares[..., :, None] * value[..., None, :], (2, 3), m.gain, 1e-2)


HEADS = {"value": (3, 5), "shares": (2, 5), "gain": (2, 3)}

add(
    "gain-over-repeated-heads",
    3 + 6,
    written(5, lambda m, x: linear(repeated(m, x).flatten(-2), m.reader), **HEADS, reader=(4, 6)),
    why="one O(3) of both heads, which the reader follows through the gain of each; and the gain itself",
)
add(
    "gain-over-repeated-heads-one-reader",
    3,
    written(5, lambda m, x: linear(repeated(m, x), m.reader).tanh().sum(-2), **HEADS, reader=(4, 3)),
    why="a reader of both heads cannot follow two gains: no O(3), and of the gains what both have in common",
)
add(
    "gain-over-repeated-heads-summed",
    3,
    written(5, lambda m, x: linear(repeated(m, x).sum(-2), m.reader), **HEADS, reader=(4, 3)),
    why="the same, where heads are added before they are read",
)


add(
    "gains-of-one-another",
    15 + 15 + 30 - 2,
    written(1, lambda m, x: x * torch.einsum("hd,hdk->k", m.a * m.b.mT, m.y), a=(3, 5), b=(5, 3), y=(3, 5, 2)),
    why="each is a gain on the last axis of the other, and neither axis turns through both",
)
