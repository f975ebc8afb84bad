"""The Jacobian of the observed outputs with respect to all parameters, and its null space.

    J : parameters -> outputs,   nullity(J) = dimension of the set of first-order symmetries at this point.

Everything runs in float64 with upcasts lifted, at generic parameters. Rows are normalised per input and columns by
their norm: neither changes the rank, both make the singular values comparable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regauge.check.generic import double_copy, randomise, resample
from regauge.check.lift import lifted
from regauge.check.observe import Observe, run
from regauge.errors import InputError

NULL = 1e-10  # no singular value above this (relative to the largest) is called null: eps in a norm leaves 1e-9 .. 4e-8
NOISE = 1e-13  # none below this is called non-null: rounding leaves 1e-16 .. 1e-14
DROWNED = 1e-12  # a column this small beside the largest is rounding: its parameter has no effect on its own
CLEAR = 30.0  # the two values around the cut differ by at least this factor, or the measurement is called unclear
BATCHES = 400
CHUNK = 256


@dataclass(frozen=True)
class NullSpace:
    """Null vectors of J at one generic point.

    `names` and `sizes` lay the parameters out in one vector of length P; `basis` is (P, nullity) with orthonormal
    columns in the coordinates scaled by `scale` (P), so that basis[:, i] / scale is the null vector itself.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    nullity: int
    above: float
    below: float
    spectrum: Tensor
    basis: Tensor
    scale: Tensor
    dead: Tensor
    alone: tuple[int, ...]
    point: dict[str, Tensor]

    @property
    def ratio(self) -> float:
        return self.above / max(self.below, 1e-16)

    @property
    def clear(self) -> bool:
        return self.ratio >= CLEAR


def null_space(
    model: nn.Module, args: tuple, kwargs: dict | None = None, *, observe: Observe = None, seed: int = 0
) -> NullSpace:
    """Measure the null space of J at random parameters and inputs.

    The parameters' values are replaced (their shapes, ties and the model's mode are kept), inputs are drawn anew in the
    shapes of `args` until further ones leave the rank unchanged.

    Raises InputError for a model on meta, without parameters, or whose output does not depend on them.
    """
    generator = torch.Generator().manual_seed(seed)
    twin = double_copy(model)
    randomise(twin, generator)
    named = {n: p for n, p in twin.named_parameters() if p.requires_grad}
    total = sum(p.numel() for p in named.values())
    if not total:
        raise InputError("the model has no floating parameters: there is nothing to count")
    rows: list[Tensor] = []
    with lifted():
        blocks = (_rows(twin, named, resample((args, kwargs or {}), generator), observe, generator, total)
                  for _ in range(BATCHES))
        for block in blocks:
            rows.append(block)
            if len(rows) >= 2 and sum(map(len, rows)) >= total + 20:
                break
        jacobian, found = torch.cat(rows), None
        while True:
            found = _split(jacobian)
            fresh = next(blocks, None)
            if fresh is None or not _sees(fresh, found[2] / found[3][:, None]):
                break
            jacobian = torch.cat([torch.linalg.qr(jacobian, mode="r").R, fresh])
    spectrum, rank, basis, scale = found
    if rank == 0:
        raise InputError("the observed output does not depend on any parameter")
    sizes = tuple(p.numel() for p in named.values())
    top = spectrum / spectrum[0]
    return NullSpace(
        names=tuple(named), sizes=sizes, nullity=total - rank,
        above=float(top[rank - 1]), below=float(top[rank]) if rank < len(top) else 0.0,
        spectrum=top, basis=basis, scale=scale, dead=(jacobian == 0).all(0),
        alone=tuple(total_ - _split(block)[1] for total_, block in zip(sizes, jacobian.split(sizes, 1), strict=True)),
        point={n: t.detach().clone() for n, t in twin.state_dict().items()},
    )


def _rows(model: nn.Module, named: dict[str, Tensor], inputs: Any, observe: Observe, generator: torch.Generator,
          total: int) -> Tensor:
    """J's rows for one batch of inputs, (m, P): every output, or total + 20 random combinations if there are more."""
    args, kwargs = inputs
    outputs = run(model, args, kwargs, observe)
    flat = torch.cat([(torch.view_as_real(t) if t.is_complex() else t).reshape(-1) for t in outputs.values()])
    if not flat.requires_grad:
        raise InputError("the observed output does not depend on any parameter")
    if not bool(torch.isfinite(flat).all()):
        raise InputError("the model returns NaN or infinity at generic parameters: observe something finite")
    m = len(flat)
    if m > total + 20:
        seeds = torch.randn(total + 20, m, generator=generator, dtype=torch.float64) / m**0.5
    else:
        seeds = torch.eye(m, dtype=torch.float64)
    blocks = [_pull(flat, named, chunk) for chunk in seeds.split(CHUNK)]
    rows = torch.cat(blocks)
    return rows / rows.norm().clamp_min(1e-300) * m**0.5


def _pull(flat: Tensor, named: dict[str, Tensor], cotangents: Tensor) -> Tensor:
    """cotangents @ J by one batched backward pass, or row by row where an operator has no batched one."""
    parameters = tuple(named.values())
    options = {"retain_graph": True, "allow_unused": True}
    try:
        grads = torch.autograd.grad(flat, parameters, cotangents, is_grads_batched=True, **options)
    except RuntimeError:
        each = [torch.autograd.grad(flat, parameters, c, **options) for c in cotangents]
        grads = tuple(None if g[0] is None else torch.stack(g) for g in zip(*each, strict=True))
    pieces = [torch.zeros(len(cotangents), p.numel(), dtype=torch.float64) if g is None else g.reshape(len(g), -1)
              for p, g in zip(parameters, grads, strict=True)]
    return torch.cat(pieces, 1).detach()


def _split(jacobian: Tensor) -> tuple[Tensor, int, Tensor, Tensor]:
    """(singular values, rank, null basis, column scale) of a Jacobian."""
    scale = jacobian.norm(dim=0)
    scale = torch.where(scale > DROWNED * scale.max(), scale, scale.max().clamp_min(1e-300))  # never scale noise up
    scaled = jacobian / scale
    if len(scaled) > scaled.shape[1]:
        scaled = torch.linalg.qr(scaled, mode="r").R
    _, values, right = torch.linalg.svd(scaled, full_matrices=True)
    rank = cut(values)
    return values, rank, right[rank:].T, scale


def cut(values: Tensor) -> int:
    """The rank that descending singular values show: the widest ratio between a value above NOISE and one below NULL
    (relative to the largest); what is below NULL only by being absent counts as 1e-16."""
    if not len(values) or values[0] == 0:
        return 0
    top = (values / values[0]).clamp_min(1e-16)
    below = torch.cat([top[1:], top.new_tensor([1e-16])])
    ratio = torch.where((below < NULL) & (top > NOISE), top / below, 0.0)
    return int(ratio.argmax()) + 1


def _sees(rows: Tensor, vectors: Tensor) -> bool:
    """Whether new rows of J move along vectors that the old ones did not."""
    if not vectors.shape[1]:
        return False
    unit = vectors / vectors.norm(dim=0)
    return bool((rows @ unit).norm() / rows.norm() > NULL)
