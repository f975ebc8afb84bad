"""Residual stacks as neural ODEs: each block is one Euler step of unit length, and a gauge element of the weights is a
spatial diffeomorphism phi_k at every site, an affine one: step_k' o phi_k = phi_{k+1} o step_k.

Between the sites the diffeomorphism is free, so any path of affine maps through the phi_k will do; where two neighbours
have determinants of different sign there is none, and the lattice keeps more than the connected group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regauge.errors import CheckError, InputError
from regauge.flow.diffeos import CallableDiffeo
from regauge.flow.sites import Map, Segment, Step


class PiecewiseField(nn.Module):
    """F(t, x) = step_k(x) - x for t in [k, k + 1): Euler from 0 to L in L steps is the stack."""

    def __init__(self, steps: Sequence[Map]) -> None:
        super().__init__()
        self.steps = tuple(steps)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.steps[min(int(t), len(self.steps) - 1)](x) - x


class LiftedStack(nn.Module):
    """Segments in order; a site lies before, between and after them."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        super().__init__()
        self.segments = tuple(segments)

    def forward(self, x: Tensor) -> Tensor:
        return self.sites(x)[-1]

    def sites(self, x: Tensor) -> list[Tensor]:
        """The states at all sites."""
        states = [x]
        for segment in self.segments:
            states.append(segment(states[-1]))
        return states

    def steps(self) -> tuple[int, int]:
        """(first, last + 1) of the residual blocks; InputError if they are not one run."""
        places = [k for k, segment in enumerate(self.segments) if isinstance(segment, Step)]
        if not places or places != list(range(places[0], places[-1] + 1)):
            raise InputError("lift: the residual blocks are not one uninterrupted run, so they are not one field")
        return places[0], places[-1] + 1

    def field(self) -> PiecewiseField:
        """The field of the residual blocks, on [0, number of blocks]."""
        first, last = self.steps()
        return PiecewiseField(self.segments[first:last])


@dataclass(frozen=True)
class SiteMap:
    """x -> g x + c at one site, g (n, n) and c (n,)."""

    matrix: Tensor
    shift: Tensor

    def push(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T + self.shift


@dataclass(frozen=True)
class StackElements:
    """A map for every site, None where the states do not span their space and so do not determine it; residual: the
    worst misfit of step_k' o phi_k = phi_{k+1} o step_k on the states, relative."""

    maps: tuple[SiteMap | None, ...]
    residual: float


def stack_elements(before: LiftedStack, after: LiftedStack, x: Tensor, tolerance: float = 1e-8) -> StackElements:
    """Read phi_0, ..., phi_L off two settings of one stack: the affine maps that carry the states of x at each site.

    x: many more input states than the widest site has entries. Raises CheckError naming the first site whose states are
    not related by an affine map: then the two settings do not differ by a gauge element.
    """
    if len(before.segments) != len(after.segments):
        raise InputError(
            "stack_elements: the stacks have different numbers of segments; pass two settings of one model"
        )
    maps: list[SiteMap | None] = []
    worst = 0.0
    for k, (old, new) in enumerate(zip(before.sites(x), after.sites(x), strict=True)):
        old, new = old.flatten(0, -2).double(), new.flatten(0, -2).double()
        ones = torch.cat([old, torch.ones_like(old[:, :1])], -1)
        found = torch.linalg.lstsq(ones, new, driver="gelsd")
        gap = float((ones @ found.solution - new).norm() / new.norm())
        if gap > tolerance:
            raise CheckError(
                f"stack_elements, site {k}: no affine map carries the states to the others (misfit {gap:.2g}); the two "
                "settings do not differ by a symmetry, or only by a permutation between layers: compare those with lift"
            )
        worst = max(worst, gap)
        full = int(found.rank) == ones.shape[1]
        maps.append(SiteMap(found.solution[:-1].T, found.solution[-1]) if full else None)
    return StackElements(tuple(maps), worst)


def stack_diffeo(maps: Sequence[SiteMap]) -> CallableDiffeo:
    """The spatial diffeomorphism that is phi_k at t = k: affine maps, linear in t from site to site.

    Raises InputError where two neighbours have determinants of different sign, or the line between them meets a
    singular matrix: no path, or a curved one, would be needed.
    """
    for k, (here, there) in enumerate(zip(maps, maps[1:], strict=False)):
        values = torch.linalg.eigvals(torch.linalg.solve(here.matrix, there.matrix))
        if bool(((values.real <= 0) & (values.imag.abs() < 1e-9)).any()):
            raise InputError(
                f"stack_diffeo: between sites {k} and {k + 1} the straight path of matrices is singular; take each site's "
                "map by itself (the lattice needs no path)"
            )

    def at(t: Tensor) -> tuple[Tensor, Tensor]:
        k = min(int(t), len(maps) - 2)
        s = t - k
        return (
            (1 - s) * maps[k].matrix + s * maps[k + 1].matrix,
            (1 - s) * maps[k].shift + s * maps[k + 1].shift,
        )

    def push(t: Tensor, x: Tensor) -> Tensor:
        matrix, shift = at(t)
        return x @ matrix.T + shift

    def pull(t: Tensor, y: Tensor) -> Tensor:
        matrix, shift = at(t)
        return torch.linalg.solve(matrix, (y - shift).T).T

    return CallableDiffeo(push, pull)
