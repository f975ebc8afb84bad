"""Units that the gauge makes redundant: dead ones, parallel ones, sign pairs.

Every unit is first brought to |w| = 1 by the positive rescaling (w, a) -> (w / s, s a), the R+ of its bond, and to a
fixed sign of its line by z -> -z, which exchanges its two slopes. Units that are then the same function up to a factor
are one unit.
"""

from __future__ import annotations

import numpy as np

from regauge.errors import InputError
from regauge.polytope.arrangement import components
from regauge.polytope.net import Array, Layer, Maxout, Network, Slopes


def reduce(net: Network, *, dead: float = 1e-12, parallel: float = 1e-9) -> Network:
    """The same function with fewer units, in a fixed gauge: |w| = 1, units (and the pieces of maxout) in order, even
    units with a fixed sign.

    dead: drop a unit whose size |w| |a| is below this share of the largest (0: only exact zeros).
    parallel: merge units whose directions differ by at most this.
    With both at rounding level f is kept; larger values round f, as they should after inexact training. Networks that
    differ by an element of their gauge group reduce to the same network.

    Raises InputError for a network in rational numbers (reduce before `rational`) or when nothing is left.
    """
    if net.exact:
        raise InputError("reduce works on floating weights; reduce first, then extract with exact=True.")
    layers, out, before = list(net.layers), net.out, None
    while before != (before := [layer.units for layer in layers]):  # a unit dropped above may leave one below dead
        for i, layer in enumerate(layers):
            last = i == len(layers) - 1
            columns = out[None] if last else layers[i + 1].weight
            kind = layer.activation
            if isinstance(kind, Maxout):
                layer, columns = _reduce_maxout(layer, kind, columns, dead, parallel)
            else:
                layer, columns = _reduce_slopes(layer, kind, columns, dead, parallel, last)
            if not layer.units:
                raise InputError(f"every unit of layer {i} is dead, so f = 0 has no body; train it or lower `dead`.")
            layers[i], columns = _ordered(layer, columns)
            if last:
                out = columns[0]
            else:
                layers[i + 1] = Layer(columns, layers[i + 1].activation)
    return Network(tuple(layers), out, net.scale)


def _ordered(layer: Layer, columns: Array) -> tuple[Layer, Array]:
    """Units sorted by their weights; units with phi(-z) = phi(z) turned to a positive first large weight."""
    match layer.activation:
        case Maxout(pieces):
            groups = np.round(layer.weight, 6).reshape(layer.units, -1) + 0.0
            order = np.lexsort(groups.T[::-1])
            rows = layer.weight.reshape(layer.units, pieces, -1)[order].reshape(layer.weight.shape)
            return Layer(rows, layer.activation), columns[:, order]
        case Slopes(positive, negative):
            weight = layer.weight.copy()
            large = np.abs(weight) > 0.5 / np.sqrt(weight.shape[1])
            lead = weight[np.arange(len(weight)), large.argmax(axis=1)]
            weight[(positive == -negative) & (lead < 0)] *= -1
            order = np.lexsort(np.round(weight, 6).T[::-1] + 0.0)
            return Layer(weight[order], Slopes(positive[order], negative[order])), columns[:, order]


def _alive(size: Array, dead: float) -> Array:
    return size > dead * size.max(initial=0.0)


def _reduce_maxout(layer: Layer, kind: Maxout, columns: Array, dead: float, parallel: float) -> tuple[Layer, Array]:
    groups = layer.weight.reshape(layer.units, -1)
    length = np.linalg.norm(groups, axis=1)
    alive = _alive(length * np.linalg.norm(columns, axis=0), dead)
    groups, columns = groups[alive] / length[alive, None], columns[:, alive] * length[alive]
    groups = np.array([_sorted(rows).reshape(-1) for rows in groups.reshape(len(groups), kind.pieces, -1)])
    groups = groups.reshape(-1, layer.weight.shape[1] * kind.pieces)
    label = _together(groups, parallel)
    first = np.unique(label, return_index=True)[1]
    merged = _gathered(columns, label)
    return Layer(groups[first].reshape(len(first) * kind.pieces, layer.weight.shape[1]), kind), merged


def _sorted(rows: Array) -> Array:
    """The pieces of one unit, whose order means nothing, in a fixed one."""
    return rows[np.lexsort(np.round(rows, 6).T[::-1] + 0.0)]


def _reduce_slopes(
    layer: Layer, kind: Slopes, columns: Array, dead: float, parallel: float, last: bool
) -> tuple[Layer, Array]:
    length = np.linalg.norm(layer.weight, axis=1)
    response = np.stack([kind.positive, kind.negative], axis=1).astype(float)
    alive = _alive(length * np.linalg.norm(columns, axis=0) * np.abs(response).max(axis=1), dead)
    unit, response = layer.weight[alive] / length[alive, None], response[alive]
    columns = columns[:, alive] * length[alive]

    label = _together(unit, parallel, lines=True)
    first = np.unique(label, return_index=True)[1]
    lead = unit[first][label]
    flip = (unit * lead).sum(axis=1) < 0
    response[flip] = -response[flip][:, ::-1]  # phi(-z) as a function of z
    if last:  # one output: whatever lives on a line is one unit with two slopes
        total = np.stack([np.bincount(label, columns[0] * response[:, k], len(first)) for k in (0, 1)], axis=1)
        factor = total[np.arange(len(total)), np.abs(total).argmax(axis=1)]
        keep = _alive(np.abs(factor), dead)
        total, factor = total[keep], factor[keep]
        sign = np.where(np.abs(total[:, 0]) > 0, np.sign(total[:, 0]), 1.0)
        factor = np.abs(factor) * sign
        return _layer(unit[first][keep], total / factor[:, None]), factor[None]
    strength = response[np.arange(len(response)), np.abs(response).argmax(axis=1)]
    shape = np.concatenate([lead, response / strength[:, None]], axis=1)
    same = _together(shape, parallel)
    first = np.unique(same, return_index=True)[1]
    columns = _gathered(columns * strength, same)
    keep = _alive(np.linalg.norm(columns, axis=0), dead)
    return _layer(shape[first][keep, :-2], shape[first][keep, -2:]), columns[:, keep]


def _layer(weight: Array, response: Array) -> Layer:
    return Layer(weight, Slopes(response[:, 0], response[:, 1]))


def _together(rows: Array, tolerance: float, lines: bool = False) -> Array:
    """Labels of rows that agree within the tolerance; as lines: up to sign."""
    gap = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    if lines:
        gap = np.minimum(gap, np.linalg.norm(rows[:, None] + rows[None], axis=2))
    return components(len(rows), *np.nonzero(gap <= tolerance))[1]


def _gathered(columns: Array, label: Array) -> Array:
    return np.stack([np.bincount(label, row, int(label.max(initial=-1)) + 1) for row in columns])
