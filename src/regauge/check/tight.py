"""Tight: no symmetry is missed. The gauge's dimension against the nullity of the Jacobian, at generic parameters.

dim(gauge) <= nullity(J)   always, if the gauge is sound;   equality: the inferred group is everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regauge.check.jacobian import NullSpace, calls_relu, null_space
from regauge.check.observe import Observe
from regauge.errors import CheckError


@dataclass(frozen=True)
class Share:
    """One parameter's part in the null space."""

    parameter: str
    size: int
    alone: int  # directions that are null with all other parameters held fixed, dead entries included
    dead: int  # entries that the function never reads
    unexplained: float  # its part of the null directions that the gauge does not give (of all, without tangents)


@dataclass(frozen=True)
class Tightness:
    """Measured nullity against inferred dimension. `gap` > 0: the gauge misses directions; < 0: it is not sound.

    `dead` entries belong to tensors of which the function reads other entries; they count. Tensors that are `unread`
    altogether do not.
    """

    dim: int
    nullity: int
    nullities: tuple[int, ...]
    dead: int
    unread: tuple[str, ...]
    parameters: int
    spectrum: tuple[float, ...]
    above: float
    below: float
    clear: bool
    explained: bool
    shares: tuple[Share, ...]

    @property
    def gap(self) -> int:
        return self.nullity - self.dim

    @property
    def ok(self) -> bool:
        return self.gap == 0 and self.clear

    def raise_if_failed(self) -> Tightness:
        """Return self, or raise CheckError with the gap, where it lies, and what to do."""
        if not self.ok:
            raise CheckError(str(self))
        return self

    def __str__(self) -> str:
        lines = [
            self._verdict(),
            f"  nullity {self.nullity} of {self.parameters} parameters "
            f"(singular values {self.above:.1e} | {self.below:.1e} around the cut; by seed {self.nullities})",
        ]
        if self.dead:
            rows = ", ".join(f"{s.parameter} {s.dead}" for s in self.shares if s.dead)
            lines.append(f"  {self.dead} of these are entries that the function never reads: {rows}")
        if self.unread:
            lines.append(f"  left out, because the function does not read them at all: {', '.join(self.unread)}")
        if self.gap > 0:
            what = "unexplained directions" if self.explained else "null directions"
            lines.append(f"  where the {what} lie:")
            width = max(len(s.parameter) for s in self.shares)
            worst = sorted(self.shares, key=lambda s: -s.unexplained)[:12]
            lines += [
                f"    {s.parameter:{width}}  {s.unexplained:7.2f}   alone {s.alone}"
                for s in worst
                if s.unexplained > 0.005
            ]
        return "\n".join(lines)

    __repr__ = __str__

    def _verdict(self) -> str:
        if not self.clear:
            return (
                f"tight: unclear. No gap in the singular values ({self.above:.1e} | {self.below:.1e}): "
                "try other seeds or a larger model"
            )
        if self.gap == 0:
            return f"tight: dimension {self.dim} = nullity"
        if self.gap < 0:
            return (
                f"tight: NOT sound. The gauge claims {self.dim} dimensions, only {self.nullity} leave the function "
                "unchanged"
            )
        return f"tight: {self.gap} missing. The gauge has {self.dim} dimensions, the function {self.nullity}"


def tight(
    model: nn.Module,
    args: tuple,
    gauge: Any,
    kwargs: dict | None = None,
    *,
    observe: Observe = None,
    seeds: Sequence[int] = (0, 1, 2),
) -> Tightness:
    """Compare `gauge.dim` with the measured nullity of d outputs / d parameters.

    `model` is a small model (thousands of parameters, cost cubic in them); its values do not matter, since they are
    replaced by generic ones, once per seed; the smallest nullity counts, because a dead unit at one point only adds
    directions. A model that calls relu is also measured with the leaky stand-in, once per seed. Tied parameters count
    once. `observe` as in `infer`.

    Raises InputError for a model without values or without parameters.
    """
    if not seeds:
        raise ValueError("seeds is empty: pass at least one")
    kinds = (False, True) if calls_relu(model, args, kwargs) else (False,)
    spaces = [null_space(model, args, kwargs, observe=observe, seed=s, leaks=k) for s in seeds for k in kinds]
    best = min(spaces, key=lambda s: (s.nullity, -s.ratio))
    unread = _unread(model, gauge, best)
    outside = sum(n for name, n in zip(best.names, best.sizes, strict=True) if name in unread)
    tangents = _tangents(gauge, best)
    rest = best.basis if tangents is None else _without(best.basis, tangents)
    mass = rest.pow(2).sum(1).split(best.sizes)
    dead = best.dead.split(best.sizes)
    rows = zip(best.names, best.sizes, best.alone(), dead, mass, strict=True)
    return Tightness(
        dim=gauge.dim,
        nullity=best.nullity - outside,
        nullities=tuple(s.nullity - outside for s in spaces),
        dead=int(best.dead.sum()) - outside,
        unread=unread,
        parameters=sum(best.sizes) - outside,
        spectrum=best.spectrum,
        above=best.above,
        below=best.below,
        clear=best.clear,
        explained=tangents is not None,
        shares=tuple(
            Share(n, size, alone, int(d.sum()), float(m.sum())) for n, size, alone, d, m in rows if n not in unread
        ),
    )


def _unread(model: nn.Module, gauge: Any, space: NullSpace) -> tuple[str, ...]:
    """Parameters that the function never reads at all, unless the gauge lists them: they belong to no group."""
    listed = set(getattr(gauge, "parameters", ()))
    aliases: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), set()).add(name)
    names = {n: aliases[id(p)] for n, p in model.named_parameters()}
    dead = space.dead.split(space.sizes)
    return tuple(n for n, d in zip(space.names, dead, strict=True) if bool(d.all()) and listed.isdisjoint(names[n]))


def _tangents(gauge: Any, space: NullSpace) -> Tensor | None:
    """The gauge's own directions at the measured point, (P, k), in scaled coordinates; None if it offers none."""
    offer = getattr(gauge, "tangents", None)
    if offer is None:
        return None
    columns = [torch.cat([vector[n].reshape(-1).double() for n in space.names]) for vector in offer(space.point)]
    if not columns:
        return space.scale.new_zeros(len(space.scale), 0)
    return torch.stack(columns, 1) * space.scale[:, None]


def _without(basis: Tensor, tangents: Tensor) -> Tensor:
    """An orthonormal basis of the part of span(basis) orthogonal to the tangents."""
    if not tangents.shape[1] or not basis.shape[1]:
        return basis
    left, values, _ = torch.linalg.svd(tangents, full_matrices=False)
    span = left[:, values > 1e-9 * values[0]]
    inside = torch.linalg.svd(basis.T @ span).U  # rotate the null space so that explained directions come first
    overlap = torch.linalg.svdvals(basis.T @ span)
    explained = int((overlap > 0.5).sum())
    return basis @ inside[:, explained:]
