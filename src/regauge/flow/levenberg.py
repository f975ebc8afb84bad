"""Levenberg-Marquardt on per-sample residuals: tuning has few parameters, many samples and needs many digits.

The Gauss-Newton matrix is accumulated in chunks in float64 from per-sample Jacobians (reverse mode under vmap). For wide
states a few random probes e of each residual stand in for all its coordinates, E[e e^T] = 1; gradients stay exact.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

Residual = Callable[[Tensor, Tensor], Tensor]


def _pack(parameters: dict[str, Tensor]) -> Tensor:
    return torch.cat([p.detach().flatten() for p in parameters.values()])


def _unpack(flat: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    sizes = [p.numel() for p in like.values()]
    return {name: part.view(p.shape) for (name, p), part in zip(like.items(), flat.split(sizes), strict=True)}


def normal_equations(
    module: nn.Module, names: list[str], field: Callable, x0: Tensor, x1: Tensor, probes: int, rng: torch.Generator, chunk: int = 256
) -> tuple[Tensor, Tensor]:
    """(J^T J, J^T residual) per sample in float64, of the residual module(field, x0) - x1."""
    chosen = {name: p.detach() for name, p in module.named_parameters() if name in names}
    size = sum(p.numel() for p in chosen.values())
    matrix, vector = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    dim = x0.shape[1]
    exact = dim <= probes

    def rows(start: Tensor, goal: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        def residual(values: dict[str, Tensor]) -> Tensor:
            return functional_call(module, values, (field, start.unsqueeze(0))).squeeze(0) - goal

        value, pull = vjp(residual, chosen)
        jac = vmap(lambda e: torch.cat([g.flatten() for g in pull(e)[0].values()]))(vectors)
        return value, jac

    for a in range(0, len(x0), chunk):
        start, goal = x0[a : a + chunk], x1[a : a + chunk]
        if exact:
            vectors = torch.eye(dim, dtype=x0.dtype).expand(len(start), dim, dim)
        else:
            signs = torch.randint(0, 2, (len(start), probes, dim), generator=rng).to(x0.dtype) * 2 - 1
            with torch.no_grad():
                now = module(field, start) - goal
            vectors = torch.cat([signs / probes**0.5, now.unsqueeze(1)], 1)
        value, jac = vmap(rows)(start, goal, vectors)
        jac = jac.double()
        curved = jac if exact else jac[:, :-1]
        matrix += torch.einsum("npi,npj->ij", curved, curved)
        vector += torch.einsum("np,npi->i", value.double(), jac) if exact else jac[:, -1].sum(0)
    return matrix / len(x0), vector / len(x0)


def minimise(
    module: nn.Module,
    names: list[str],
    field: Callable,
    x0: Tensor,
    x1: Tensor,
    iterations: int,
    *,
    probes: int = 4,
    ridge: float = 1e-9,
    seed: int = 0,
    report: Callable[[int], None] | None = None,
) -> tuple[float, ...]:
    """Least squares of module(field, x0) - x1 over the named parameters, in place; the accepted losses.

    Stops early when ten step lengths in a row bring nothing. Marquardt's scaled damping, plus a small ridge against the
    directions that do nothing.
    """
    rng = torch.Generator().manual_seed(seed)
    chosen = {name: p for name, p in module.named_parameters() if name in names}
    flat = _pack(chosen).double()

    def write(values: Tensor) -> None:
        with torch.no_grad():
            for p, value in zip(chosen.values(), _unpack(values, chosen).values(), strict=True):
                p.copy_(value)

    def loss() -> float:
        with torch.no_grad():
            value = (module(field, x0) - x1).double().square().sum(-1).mean()
        return float(value) if bool(value.isfinite()) else float("inf")

    damping, best = 1e-2, loss()
    history = [best]
    for k in range(iterations):
        matrix, vector = normal_equations(module, names, field, x0, x1, probes, rng)
        diagonal = torch.diagonal(matrix)
        floor = ridge * diagonal.max()
        improved = False
        for _ in range(10):
            system = matrix + torch.diag(damping * diagonal + floor)
            step = torch.linalg.solve(system, vector)
            write(flat - step)
            now = loss()
            if now < best:
                flat, improved = flat - step, True
                gain, best = best - now, now
                damping = max(damping / 4, 1e-9)
                break
            damping *= 4
        history.append(best)
        if report is not None:
            report(k + 1)
        if not improved:
            break
        if gain < 1e-4 * best and k > 5:
            break
    write(flat)
    return tuple(history)
