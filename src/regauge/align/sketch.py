"""A fixed-length sketch of a model that the whole gauge group leaves alone: how it answers fixed inputs, depth by depth.

Weights are coordinates; responses are not. What a nonlinear function without a degree puts out carries no scale and no
frame (its charge is zero, its axes are monomial), and no translation reaches it: only orders and signs of its units are
left, and a Gram matrix over the units does not see those. So the Gram matrices of all such values, layer by layer, and of
the outputs, are functions on the space of models modulo gauge. With four samples or more they are between the difference of the
first two and that of the next two, which is zero in the mean for a model that has nothing to do with this one.

The graph is evaluated value by value, its weights read ahead in pieces (`stream`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from regauge.align.stream import values
from regauge.graph.ir import Along, Pointwise, Value
from regauge.solve.gauge import Gauge
from regauge.solve.plan import Plan

BINS, WIDTH = 32, 128  # depths of the sketch, numbers at each
SAMPLES = 4  # inputs that are compared with one another
ROWS = 64  # of a Gram matrix, at most
FEW = 4  # numbers that say too little: two of them agree by chance
NEAR, RELATED = 0.99, 0.5  # similarity from which models are one function or nearly, or have to do with each other


@dataclass(frozen=True)
class Sketch:
    """values: (BINS, WIDTH) float32, each row of unit norm or zero. make: which inputs it belongs to."""

    values: np.ndarray
    make: str

    def similarity(self, other: Sketch) -> float:
        """Mean cosine over depths, from -1 to 1; 1 for one function, about 0 for unrelated models of one make."""
        if self.make != other.make:
            return 0.0
        held = (np.linalg.norm(self.values, axis=1) > 0) & (np.linalg.norm(other.values, axis=1) > 0)
        return float((self.values[held] * other.values[held]).sum(1).mean()) if held.any() else 0.0

    def verdict(self, other: Sketch) -> str:
        """ "near" (one function, or trained on for a little: `align` tells which), "related" or "unrelated"."""
        s = self.similarity(other)
        return "near" if s >= NEAR else "related" if s >= RELATED else "unrelated"


def sketch(gauge: Gauge, state: Mapping[str, Tensor], make: str) -> Sketch:
    """The sketch of these weights, on the inputs that the gauge was inferred with. `state` may load lazily.

    make: any text that says which inputs these are; only sketches of one make compare."""
    taps = {v.id: axes for v, axes in invariants(gauge.plan)}
    features = [feature(x, taps[i], n) for n, (i, x) in enumerate(values(gauge.plan, state, set(taps)))]
    out = np.zeros((BINS, WIDTH))
    for n, f in enumerate(features):
        out[n * min(BINS, len(features)) // len(features)] += f
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    return Sketch((out / np.where(norms > 0, norms, 1.0)).astype(np.float32), make)


def invariants(plan: Plan) -> Iterator[tuple[Value, tuple[int, ...]]]:
    """Values that move by orders and signs alone, each with the axes that are moved."""
    observed = {v.id for v in plan.graph.outputs}
    for v in plan.graph.values:
        if not (v.data and v.learned):
            continue
        match v.op:
            case Pointwise() | Along() if not v.op.linear and v.op.degree in (None, 0, 0.0):
                yield v, _moved(plan, v)
            case _ if v.id in observed:
                yield v, ()


def _moved(plan: Plan, v: Value) -> tuple[int, ...]:
    axes = set()
    for block in plan.blocks.of[v.id]:
        for k, (axis, _, _) in enumerate(block.leaves):
            if plan.indices.root[plan.indices.cells.cell(block, k)] in plan.shuffles:
                axes.add(axis)
    return tuple(sorted(axes))


def feature(x: Tensor, moved: tuple[int, ...], number: int) -> np.ndarray:
    """WIDTH numbers that no order or sign of the moved axes changes."""
    rng = np.random.default_rng(number)
    x = torch.nan_to_num(x.double(), posinf=0.0, neginf=0.0)
    samples = next((a for a in range(x.ndim) if a not in moved and x.shape[a] % SAMPLES == 0), None)
    if samples is None:
        found = _cosines(x, x, moved, rng) if moved else x.reshape(-1).numpy()
    else:  # samples first, alone on their axis
        inner = tuple(a + (a < samples) for a in moved)
        x = x.movedim(samples, 0)
        x = x.reshape(SAMPLES, -1, *x.shape[1:])
        first, second = x[0] - x[1], x[2] - x[3]
        found = _cosines(first, second, inner, rng) if moved else torch.stack([first, second]).reshape(-1).numpy()
    return _unit(_projected(found, rng)) if len(found) >= FEW else np.zeros(WIDTH)


def _matrix(x: Tensor, moved: tuple[int, ...]) -> Tensor:
    """Samples by units."""
    kept = [a for a in range(x.ndim) if a not in moved]
    return x.permute([*kept, *moved]).reshape(prod(x.shape[a] for a in kept), -1)


def _cosines(x: Tensor, y: Tensor, moved: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Cosines between samples of x and of y."""
    a, b = (_matrix(z, moved) for z in (x, y))
    if len(a) > ROWS:
        pick = torch.from_numpy(rng.permutation(len(a))[:ROWS])
        a, b = a[pick], b[pick]
    a, b = (z / z.norm(dim=1, keepdim=True).clamp_min(1e-30) for z in (a, b))
    return (a @ b.mT).reshape(-1).numpy()


def _projected(f: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every number with a random sign into one of WIDTH sums (a count sketch): inner products stay, in the mean."""
    return np.bincount(
        rng.integers(0, WIDTH, len(f)), weights=f * (rng.integers(0, 2, len(f), dtype=np.int8) * 2 - 1), minlength=WIDTH
    )


def _unit(f: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(f)
    return f / norm if norm > 0 else f


__all__ = ["Sketch", "feature", "invariants", "sketch"]
