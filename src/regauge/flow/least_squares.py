"""Levenberg-Marquardt for samplers: few parameters, many samples, and residuals that are far from small at first.

The Jacobian of x(1) comes from reverse mode: every sample gets its own copy of the sampler's table (its stages' times,
scales, weights), and the gradient of one component, summed over samples, is a row for each of them; the table's own
Jacobian in the parameters is the same for all. So it costs as many backward passes as there are components, whatever
the number of parameters. Beyond `directions` components, J^T J is estimated without bias from as many random ones for
each sample; the slope J^T r stays exact, or the search would stall where the estimate's noise exceeds it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from regauge.flow.comoving import ComovingSampler
from regauge.flow.fields import Field

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Fit:
    """rmse on the fitted samples by iteration, and the best one on the others."""

    history: tuple[float, ...]
    best: float


def fit(
    sampler: ComovingSampler,
    names: Sequence[str],
    field: Field,
    train: Pair,
    watch: Pair,
    iterations: int,
    *,
    draw: Callable[[], tuple[Tensor, Tensor]] | None = None,
    refresh: int = 15,
    batch: int = 512,
    directions: int = 8,
    rng: torch.Generator | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Fit:
    """Minimise the mean square of sampler(x0) - x1 over the named parameters, in place.

    train: what is fitted, (n, d) each; all of it, or what `draw` gives every `refresh` iterations: indices (m,) and
    weights (m,) of mean one. watch: what the best iterate is chosen on, so that a fit to few samples stops in time, and
    what ends the search: 1 % less there is asked of every `refresh` iterations. A step is taken only if it lowers the
    error on what is fitted, so that error rises only where samples change.
    """
    vector = _gather(sampler, names)
    best_vector, best = vector, _rms(sampler, field, watch)
    damping, history, stuck = 1e-2, [], False
    before = math.inf  # the best at the last refresh
    pair, weights, error = train, torch.ones_like(train[0][:, 0]), math.inf
    for done in range(iterations):
        fresh = done == 0
        if done and done % refresh == 0:
            if best > 0.99 * before:
                break
            before = best
        if draw is not None and (stuck or done % refresh == 0):
            index, weights = draw()
            pair, fresh, damping = (train[0][index], train[1][index]), True, min(damping, 1e-2)
        if fresh:
            error = _rms(sampler, field, pair, weights)
        normal, slope = _normal_equations(sampler, names, field, pair, weights, batch, directions, rng)
        for _ in range(8):
            step = _damped(normal, slope, damping)
            _scatter(sampler, names, vector + step)
            after = _rms(sampler, field, pair, weights)
            if after < error:
                break
            damping *= 4
        report(done + 1)
        moved = after < error
        if moved:
            stuck = after > (1 - 1e-4) * error
            vector, error, damping = vector + step, after, max(damping / 5, 1e-8)
            history.append(error)
            seen = _rms(sampler, field, watch)
            if seen < best:
                best_vector, best = vector, seen
        else:
            _scatter(sampler, names, vector)
            stuck = True
        if stuck and (draw is None or (fresh and not moved)):
            break
    _scatter(sampler, names, best_vector)
    report(iterations)
    return Fit(tuple(history), best)


def _damped(normal: Tensor, slope: Tensor, damping: float) -> Tensor:
    """-(A + damping diag A)^-1 g; a parameter that nothing depends on stays where it is."""
    scale = normal.diagonal()
    acts = scale > 1e-14 * scale.max()
    floor = scale.clamp(min=1e-9 * float(scale.max()))
    return torch.where(acts, torch.linalg.solve(normal + torch.diag(damping * floor), -slope * acts), 0.0)


@torch.enable_grad()
def _normal_equations(
    sampler: ComovingSampler,
    names: Sequence[str],
    field: Field,
    pair: Pair,
    weights: Tensor,
    batch: int,
    directions: int,
    rng: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """(J^T J, J^T r) in double precision, summed over batches."""
    table, inner = _table_and_jacobian(sampler, names)
    acts = (inner != 0).any(0)
    inner = inner[:, acts]
    dim = pair[0].shape[1]
    normal = torch.zeros(len(acts), len(acts), dtype=torch.float64, device=inner.device)
    slope = torch.zeros(len(acts), dtype=torch.float64, device=inner.device)
    both = torch.outer(acts, acts)
    for x0, x1, w in zip(pair[0].split(batch), pair[1].split(batch), weights.split(batch), strict=True):
        own = {
            name: [entry.expand(len(x0), -1).clone().requires_grad_() for entry in entries]
            for name, entries in table.items()
        }
        leaves = [entry for entries in own.values() for entry in entries]
        residual = w.sqrt().unsqueeze(1) * (sampler(field, x0, own) - x1)
        for one in _directions(residual, directions, rng):
            rows = _rows(residual, leaves, one) @ inner
            normal[both] += (rows.T @ rows).double().flatten()
            if dim <= directions:
                slope[acts] += (rows.T @ (residual.detach() * one).sum(1)).double()
        if dim > directions:
            slope[acts] += (_rows(residual, leaves, residual.detach()).sum(0) @ inner).double()
    return normal, slope


def _directions(residual: Tensor, count: int, rng: torch.Generator | None) -> list[Tensor]:
    """All unit vectors, or as many random ones for every sample, with E[sum q q^T] = 1."""
    size, dim = residual.shape
    if dim <= count:
        return [one.expand(size, dim) for one in torch.eye(dim, dtype=residual.dtype, device=residual.device)]
    draws = torch.randn(count, size, dim, generator=rng, dtype=torch.float64)
    return list((draws / draws.norm(dim=-1, keepdim=True) * math.sqrt(dim / count)).to(residual))


def _rows(residual: Tensor, leaves: list[Tensor], along: Tensor) -> Tensor:
    """(samples, entries of the table): the gradient of <along, residual> in every sample's own table."""
    gradients = torch.autograd.grad(residual, leaves, along, retain_graph=True, allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, gradients, strict=True)]
    return torch.cat(filled, 1)


def _table_and_jacobian(sampler: ComovingSampler, names: Sequence[str]) -> tuple[dict[str, list[Tensor]], Tensor]:
    """The sampler's table, and its Jacobian (entries, parameters) in the named parameters."""
    read = _Tables(sampler)
    parameters = {f"of.{name}": sampler.get_parameter(name).detach() for name in names}

    def flat(values: dict[str, Tensor]) -> Tensor:
        table = functional_call(read, values, ())
        return torch.cat([entry.flatten() for entries in table.values() for entry in entries])

    parts = jacrev(flat)(parameters)
    table = {name: [entry.detach() for entry in entries] for name, entries in sampler.tables().items()}
    return table, torch.cat([parts[name].flatten(1) for name in parameters], 1).detach()


class _Tables(nn.Module):
    """`tables` as a forward, for functional_call."""

    def __init__(self, of: ComovingSampler) -> None:
        super().__init__()
        self.of = of

    def forward(self) -> dict[str, list[Tensor]]:
        return self.of.tables()


def _gather(sampler: ComovingSampler, names: Sequence[str]) -> Tensor:
    return torch.cat([sampler.get_parameter(name).detach().double().flatten() for name in names])


def _scatter(sampler: ComovingSampler, names: Sequence[str], vector: Tensor) -> None:
    parameters = [sampler.get_parameter(name) for name in names]
    with torch.no_grad():
        for p, part in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
            p.copy_(part.view_as(p))


def _rms(sampler: ComovingSampler, field: Field, pair: Pair, weights: Tensor | None = None) -> float:
    """Root (weighted) mean square distance; infinite where a step left the numbers."""
    with torch.no_grad():
        squares = (sampler(field, pair[0]) - pair[1]).square().sum(-1)
        value = float((squares if weights is None else weights * squares).mean().sqrt())
    return value if math.isfinite(value) else math.inf
