"""The true faces of a piecewise-linear function on a fan: cones are merged across walls where the gradient is equal.

Only one thing is decided by numbers: which walls bend. All else is combinatorial, in any dimension: a wall is true
where it bends, and a lower face is true where at least three true faces one level higher meet (a face inside a larger
one sees exactly two of those, or none).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regauge.polytope.arrangement import components
from regauge.polytope.fan import Fan
from regauge.polytope.net import Array


@dataclass(frozen=True, eq=False)
class Strata:
    """`labels[k]`: for each fan face of level k its true face, -1 if it has none. `pairs[k - 1]`: (face, subface)."""

    labels: tuple[Array, ...]
    counts: tuple[int, ...]
    pairs: tuple[Array, ...]
    visible: tuple[Array, ...]


def walls(fan: Fan) -> Array:
    """(walls, 2): the two cones on either side of every wall."""
    cell, wall = fan.pairs(fan.top)
    return cell[np.argsort(wall, kind="stable")].reshape(-1, 2)


def strata(fan: Fan, bends: Array, seen: Array) -> Strata:
    """The true faces. `bends`: (walls,) whether the gradient jumps; `seen`: (rays,) whether f > 0 there.

    A face none of whose rays is seen does not meet {f = 1} and is left out.
    """
    top = fan.top
    true: list[Array] = [np.ones(fan.counts[top], bool)]
    for level in range(top - 1, -1, -1):
        if level == top - 1:
            true.insert(0, bends)
        else:
            face, sub = fan.pairs(level + 1)
            true.insert(0, np.bincount(sub[true[0][face]], minlength=fan.counts[level]) >= 3)
    visible = [seen]
    for level in range(1, top + 1):
        face, sub = fan.pairs(level)
        mask = np.zeros(fan.counts[level], bool)
        mask[face[visible[-1][sub]]] = True
        visible.append(mask)
    labels = [_merged(fan, level, true, visible[level]) for level in range(top + 1)]
    pairs = []
    for level in range(1, top + 1):
        face, sub = fan.pairs(level)
        both = np.stack([labels[level][face], labels[level - 1][sub]], axis=1)
        pairs.append(_unique_pairs(both[(both >= 0).all(axis=1)]))
    return Strata(
        tuple(labels), tuple(int(label.max(initial=-1)) + 1 for label in labels), tuple(pairs), tuple(visible)
    )


def _merged(fan: Fan, level: int, true: list[Array], visible: Array) -> Array:
    """Label true faces of a level, joined across faces one level lower that are not true."""
    size = fan.counts[level]
    if level == 0 or true[level - 1].all():
        keep = true[level] & visible
        return np.where(keep, np.cumsum(keep) - 1, -1)
    face, sub = fan.pairs(level)
    inner = true[level][face] & ~true[level - 1][sub]
    order = np.argsort(sub[inner], kind="stable")
    face, sub = face[inner][order], sub[inner][order]
    same = sub[1:] == sub[:-1]
    _, label = components(size, face[1:][same], face[:-1][same])
    shown = np.zeros(label.max() + 1, bool)
    shown[label[true[level] & visible]] = True
    number = np.where(shown, np.cumsum(shown) - 1, -1)
    return np.where(true[level], number[label], -1)


def _unique_pairs(pairs: Array) -> Array:
    if not len(pairs):
        return pairs
    width = int(pairs[:, 1].max()) + 1
    key = np.sort(pairs[:, 0].astype(np.int64) * width + pairs[:, 1])
    key = key[np.append(True, key[1:] != key[:-1])]
    return np.stack([key // width, key % width], axis=1)
