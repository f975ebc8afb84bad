"""Scores that are masked more than once."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.zoo.found import Written, linear
from tests.zoo.registry import Call, add, floats


def by_distance(window: int):
    """Scores that are read from four numbers by distance, none beyond, of keys in a window of the past."""

    def f(m: Written, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[-2])
        distance = places[:, None] - places
        scores = linear(x, m.near).gather(-1, distance.clamp(0, 3).expand(*x.shape[:-1], -1))
        scores = scores.masked_fill((distance < 0) | (distance > 3), 0.0)
        scores = scores.masked_fill((distance < 0) | (distance >= window), float("-inf"))
        return scores.softmax(-1) @ x

    return f


def add_window(name: str, window: int, dim: int, why: str) -> None:
    add(name, dim, lambda: Call(Written(by_distance(window), near=(4, 5)), (floats(11, 7, 5),)), why=why)


add_window("masked-again", 4, 5, "what is added at all distances, for what has none is left out by the softmax anyway")
add_window("masked-again-wider", 5, 0, "a key that has no distance and counts stays where it is")
