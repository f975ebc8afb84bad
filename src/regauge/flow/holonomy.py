"""Is a connection a metric one? Parallel transport around loops, and the symmetric forms that all loops preserve.

A connection is the Levi-Civita connection of *some* metric iff it has no torsion and a nondegenerate symmetric form at
one point is kept by every holonomy H: H^T g H = g. The forms that are kept are a linear space: of dimension 0 for a
connection without metric, 1 for an irreducible metric (its scale is unobservable), more where the space splits or is
flat. Parallel transport carries the form to every other point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.errors import InputError
from regauge.flow.geodesic import Connection

Path = Callable[[Tensor], Tensor]


def parallel_transport(connection: Connection, path: Path, steps: int = 200) -> Tensor:
    """P (d, d) with v(1) = P v(0) along path: [0, 1] -> (d,): vdot^i = -Gamma^i_jk xdot^j v^k, by RK4."""
    start = torch.zeros((), dtype=torch.float64)
    transport = torch.eye(path(start).shape[-1], dtype=torch.float64)

    def rate(u: Tensor, p: Tensor) -> Tensor:
        x, xdot = torch.func.jvp(path, (u,), (torch.ones_like(u),))[:2]
        return -torch.einsum("ijk,j->ik", connection(x.unsqueeze(0)).squeeze(0), xdot) @ p

    h = 1 / steps
    for k in range(steps):
        u = start + k * h
        k1 = rate(u, transport)
        k2 = rate(u + h / 2, transport + h / 2 * k1)
        k3 = rate(u + h / 2, transport + h / 2 * k2)
        k4 = rate(u + h, transport + h * k3)
        transport = transport + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return transport


def straight_path(start: Tensor, end: Tensor) -> Path:
    """The coordinate segment from start to end."""
    return lambda u: start + u * (end - start)


def triangle_holonomy(connection: Connection, base: Tensor, first: Tensor, second: Tensor, steps: int = 100) -> Tensor:
    """Parallel transport base -> first -> second -> base along coordinate segments."""
    corners = (base, first, second, base)
    total = torch.eye(len(base), dtype=torch.float64)
    for a, b in zip(corners, corners[1:], strict=False):
        total = parallel_transport(connection, straight_path(a, b), steps) @ total
    return total


@dataclass(frozen=True)
class MetricReport:
    """What the holonomy at a base point says.

    singular_values: of the condition H^T g H = g on symmetric g, ascending, divided by the largest |H - 1|; those below
    the threshold count. forms (n, d, d): an orthonormal basis of the kept forms. signature of the form if n = 1.
    """

    singular_values: tuple[float, ...]
    forms: Tensor
    signature: tuple[int, int] | None

    @property
    def dim(self) -> int:
        return len(self.forms)

    @property
    def is_metric(self) -> bool:
        """Some kept form is nondegenerate (a random combination is tried)."""
        if not self.dim:
            return False
        rng = torch.Generator().manual_seed(0)
        mix = torch.randn(self.dim, generator=rng, dtype=torch.float64)
        values = torch.linalg.eigvalsh(torch.einsum("n,nij->ij", mix, self.forms)).abs()
        return float(values.min()) > 1e-3 * float(values.max())


def kept_forms(holonomies: Sequence[Tensor], threshold: float = 1e-6) -> MetricReport:
    """All symmetric g with H^T g H = g for the given loops, up to `threshold` (take it above the error of a fit)."""
    if not holonomies:
        raise InputError("kept_forms: no loop, no condition; pass at least one holonomy")
    dim = len(holonomies[0])
    basis = []
    for i in range(dim):
        for j in range(i, dim):
            form = torch.zeros(dim, dim, dtype=torch.float64)
            form[i, j] = form[j, i] = 1.0 if i == j else 0.5**0.5
            basis.append(form)
    stack = torch.stack(basis)
    size = max(float((h - torch.eye(dim, dtype=h.dtype)).abs().max()) for h in holonomies)
    rows = [torch.stack([(h.T @ g @ h - g).flatten() for g in stack], -1) for h in holonomies]
    _, values, right = torch.linalg.svd(torch.cat(rows) / max(size, 1e-12) / len(rows) ** 0.5, full_matrices=True)
    values = torch.cat([values, values.new_zeros(len(stack) - len(values))])
    kept = right[values < threshold] if size > 1e-10 else right  # no holonomy at all: every form is kept
    forms = torch.einsum("nb,bij->nij", kept, stack)
    signature = None
    if len(forms) == 1:
        signs = torch.linalg.eigvalsh(forms[0])
        if int((signs < 0).sum()) > int((signs > 0).sum()):
            forms, signs = -forms, -signs
        signature = (int((signs < 0).sum()), int((signs > 0).sum()))
    return MetricReport(tuple(sorted(values.tolist())), forms, signature)


def metric_report(
    connection: Connection, base: Tensor, corners: Tensor, threshold: float = 1e-6, steps: int = 100
) -> MetricReport:
    """Holonomies of the triangles base, corners[k], corners[k+1] (corners (n, d)) and the forms that they keep."""
    loops = [triangle_holonomy(connection, base, a, b, steps) for a, b in zip(corners, corners[1:], strict=False)]
    return kept_forms(loops, threshold)


def metric_at(connection: Connection, base: Tensor, form: Tensor, point: Tensor, steps: int = 200) -> Tensor:
    """The metric at another point: g(x) = P^-T g P^-1 with P the transport from base to x."""
    back = torch.linalg.inv(parallel_transport(connection, straight_path(base, point), steps))
    return back.T @ form @ back
