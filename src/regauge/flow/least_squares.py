"""Levenberg-Marquardt for samplers: few parameters, many samples, and residuals that are far from small at first.

The Jacobian of x(1) in the parameters comes from reverse mode: every sample gets its own copy of the parameters, and
the gradient of one component, summed over samples, is a row for each of them. So it costs as many backward passes as
there are components, whatever the number of parameters; beyond `directions` components, as many random orthonormal
combinations of them (an unbiased estimate of the normal equations).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    weights: Tensor | None = None,
    batch: int = 512,
    directions: int = 8,
    rng: torch.Generator | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Fit:
    """Minimise the mean square of sampler(x0) - x1 over the named parameters, in place.

    train: what is fitted, (n, d) each, with weights (n,) of mean one. watch: what the best iterate is chosen on, so
    that a fit to few samples stops in time. A step is taken only if it lowers the error on train, so the error never
    rises there.
    """
    vector = _gather(sampler, names)
    weights = torch.ones_like(train[0][:, 0]) if weights is None else weights
    best_vector, best = vector, _rms(sampler, field, watch)
    error, damping, history = _rms(sampler, field, train, weights), 1e-2, []
    for done in range(iterations):
        normal, slope = _normal_equations(sampler, names, field, train, weights, batch, directions, rng)
        step = _damped(normal, slope, damping)
        for _ in range(8):
            _scatter(sampler, names, vector + step)
            after = _rms(sampler, field, train, weights)
            if after < error:
                break
            damping *= 4
            step = _damped(normal, slope, damping)
        report(done + 1)
        if not after < error:
            break
        vector, gain, error, damping = vector + step, 1 - after / error, after, max(damping / 5, 1e-8)
        history.append(error)
        seen = _rms(sampler, field, watch)
        if seen < best:
            best_vector, best = vector, seen
        if gain < 1e-4:
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
    size = sum(sampler.get_parameter(name).numel() for name in names)
    device, dim = pair[0].device, pair[0].shape[1]
    normal = torch.zeros(size, size, dtype=torch.float64, device=device)
    slope = torch.zeros(size, dtype=torch.float64, device=device)
    basis = torch.eye(dim, dtype=pair[0].dtype, device=device)
    if dim > directions:
        draw = torch.randn(dim, directions, generator=rng, dtype=torch.float64)
        # E[Q Q^T] = (directions / dim) 1
        basis = (torch.linalg.qr(draw).Q * math.sqrt(dim / directions)).to(basis)
    for x0, x1, w in zip(pair[0].split(batch), pair[1].split(batch), weights.split(batch), strict=True):
        own = {
            name: p.detach().expand(len(x0), *p.shape).clone().requires_grad_(name in names)
            for name, p in sampler.named_parameters()
        }
        leaves = [own[name] for name in names]
        residual = w.sqrt().unsqueeze(1) * (sampler(field, x0, own) - x1) @ basis
        for column in residual.unbind(1):
            gradients = torch.autograd.grad(column.sum(), leaves, retain_graph=True, allow_unused=True)
            filled = [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, gradients, strict=True)]
            rows = torch.cat([g.flatten(1) for g in filled], 1).double()
            normal += rows.T @ rows
            slope += rows.T @ column.detach().double()
    return normal, slope


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
