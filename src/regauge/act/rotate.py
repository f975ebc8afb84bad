"""Rotations of bonds: Hadamard, random orthogonal, principal axes, or a matrix of the user's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from regauge.act.hadamard import randomised, randomised_fixing_ones
from regauge.act.select import sources, top
from regauge.errors import InputError
from regauge.graph.ir import Param
from regauge.solve import sampling
from regauge.solve.element import Element, Rotate
from regauge.solve.gauge import Gauge
from regauge.solve.matrices import Matrices
from regauge.solve.plan import Plan, Source
from regauge.solve.state import State

HOW = ("hadamard", "orthogonal", "pca")
CLOSE = 1e-6  # how far a given matrix may be from its group
RIGID = ("O1", "GLv", "GLc", "GLvc")  # frames of which the orthogonal part fixes the vector of ones


def rotate(
    gauge: Gauge,
    state: Mapping[str, Tensor],
    bond: str,
    how: str | Tensor = "hadamard",
    *,
    seed: int = 0,
    moments: Tensor | Mapping[str, Tensor] | None = None,
) -> Element:
    """An orthogonal change of the bonds that `bond` names (see `select.sources`: a bond, a tensor's axis, or a kind).

    how: "hadamard": H D / sqrt(n) with random signs D, in factored form; on a frame that fixes the vector of ones
    H D P H^T / n with a random order P. "orthogonal": Haar measure. "pca": onto the principal axes, the largest second
    moment first; `moments` (*places, n, n) are those of the bond's activations, or a mapping from bond names. A tensor (n, n)
    or (*places, n, n): that matrix, which must belong to the group (orthogonal, or invertible on a general linear frame).

    A stream whose norms have gains is rotated between the gains, as D M D^-1: exact, but it spreads nothing. Fold first.
    Raises InputError where the group holds no such matrix.
    """
    found = sources(gauge, bond)
    if bond == "all" and isinstance(how, str) and how != "orthogonal":
        found = tuple(s for s in found if s.kind != "SO2")  # planes have only angles
    generator = torch.Generator().manual_seed(seed)
    matrices: dict[int, Matrices] = {}
    for s in found:
        matrices[s.root] = _matrices(gauge, bond, s, how, generator, moments)
    _require_gains(gauge.plan, state, set(matrices))
    return Element(gauge.plan, (Rotate(matrices),))


def _matrices(
    gauge: Gauge,
    bond: str,
    s: Source,
    how: str | Tensor,
    generator: Generator,
    moments: Tensor | Mapping[str, Tensor] | None,
) -> Matrices:
    places = tuple(n for _, n in s.places)
    if isinstance(how, Tensor):
        return _given(bond, s, how)
    if how not in HOW:
        raise InputError(f"how={how!r}: expected one of {', '.join(HOW)}, or a matrix")
    if s.kind == "SO2":
        if how != "orthogonal":
            raise InputError(f"{bond}: planes have only angles; use how='orthogonal' for random ones, or give matrices")
        return sampling.matrices(s, generator)
    if how == "pca":
        return _principal(bond, s, _moments(gauge, bond, s, moments))
    if how == "hadamard":
        make = randomised_fixing_ones if s.kind in RIGID else randomised
        return make(s.n, places, generator)
    return orthogonal(s, generator)


def orthogonal(s: Source, generator: Generator) -> Tensor:
    """Haar measure on the orthogonal part of a frame, (*places, n, n)."""
    places = [n for _, n in s.places]
    n = s.n - 1 if s.kind in RIGID else s.n
    gauss = sampling.normal(generator, *places, n, n)
    q, r = torch.linalg.qr(gauss)
    q = q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1)).unsqueeze(-2)
    return fixing_ones(q) if s.kind in RIGID else q


def fixing_ones(q: Tensor) -> Tensor:
    """The orthogonal matrices of order n that fix the vector of ones and act as q, of order n - 1, beside it."""
    n = q.shape[-1] + 1
    basis = sampling.ones_basis(n)
    inner = torch.eye(n, dtype=q.dtype).expand(*q.shape[:-2], n, n).clone()
    inner[..., 1:, 1:] = q
    return basis @ inner @ basis.mT


def _given(bond: str, s: Source, m: Tensor) -> Tensor:
    places = tuple(n for _, n in s.places)
    wanted = (*places, s.n, s.n)
    if tuple(m.shape) not in (wanted, (s.n, s.n)):
        raise InputError(f"{bond}: the matrix has the shape {tuple(m.shape)}, expected {wanted} or {(s.n, s.n)}")
    m = m.detach().double().expand(wanted).contiguous()
    unit = torch.eye(s.n, dtype=torch.float64)
    if not bool(torch.isfinite(m).all()):
        raise InputError(f"{bond}: the matrix has entries that are not finite")
    if s.kind in (*("O", "O1"), "SO2"):
        off = float((m @ m.mT - unit).abs().max())
        if off > CLOSE:
            raise InputError(f"{bond}: its group is orthogonal, and the matrix misses that by {off:.1e}")
    else:
        condition = float(torch.linalg.cond(m).max())
        if not condition < 1e12:
            raise InputError(f"{bond}: the matrix is singular (condition number {condition:.1e})")
    if s.kind == "SO2":
        off = float((m[..., 0, 0] - m[..., 1, 1]).abs().max())
        if off > CLOSE:
            raise InputError(f"{bond}: a plane may be turned, not reflected; the matrix misses that by {off:.1e}")
    if s.kind in RIGID:
        rows = s.kind in ("O1", "GLv", "GLvc")  # M 1 = 1
        columns = s.kind in ("O1", "GLc", "GLvc")  # 1^T M = 1^T
        off = max(
            float((m.sum(-1) - 1).abs().max()) if rows else 0.0, float((m.sum(-2) - 1).abs().max()) if columns else 0.0
        )
        if off > CLOSE:
            raise InputError(f"{bond}: its group fixes the vector of ones, and the matrix misses that by {off:.1e}")
    return m


def _moments(gauge: Gauge, bond: str, s: Source, moments: Tensor | Mapping[str, Tensor] | None) -> Tensor:
    from regauge.act.select import frames_of

    if isinstance(moments, Mapping):
        names = [name for name, roots in frames_of(gauge).items() if s.root in roots]
        held = next((moments[n] for n in (*names, bond) if n in moments), None)
        if held is None:
            raise InputError(
                f"moments has none of {', '.join(names)}: pca needs second moments for every bond it turns"
            )
        moments = held
    if moments is None:
        raise InputError("pca needs second moments of the bond's activations: pass moments=")
    wanted = (*(n for _, n in s.places), s.n, s.n)
    if tuple(moments.shape) not in (wanted, (s.n, s.n)):
        raise InputError(f"{bond}: the moments have the shape {tuple(moments.shape)}, expected {wanted}")
    return moments.detach().double().expand(wanted)


def _principal(bond: str, s: Source, moments: Tensor) -> Tensor:
    if float((moments - moments.mT).abs().max()) > 1e-5 * float(moments.abs().max()):
        raise InputError(f"{bond}: second moments are symmetric; these are not")
    return principal(s, moments)


def principal(s: Source, gram: Tensor) -> Tensor:
    """Rows: the principal axes of gram (*places, n, n), the largest first, each with its largest entry positive. Where the
    vector of ones is fixed, those beside it are carried to a fixed basis."""
    if s.kind in RIGID:
        basis = sampling.ones_basis(s.n)[:, 1:]
        return fixing_ones(_axes(basis.mT @ gram @ basis))
    return _axes(gram)


def _axes(gram: Tensor) -> Tensor:
    _, vectors = torch.linalg.eigh((gram + gram.mT) / 2)
    rows = vectors.flip(-1).mT
    largest = torch.take_along_dim(rows, rows.abs().argmax(-1, keepdim=True), -1)
    return rows * torch.sign(largest)


def _require_gains(plan: Plan, state: Mapping[str, Tensor], turned: set[int]) -> None:
    """A gain of zero on the way has no inverse: the rotation between gains does not exist."""
    links = [d.link for root, d in plan.frames.derived.items() if top(plan, root) in turned]
    wide = State(plan, state)
    for block in dict.fromkeys(link.gain.block for link in links):
        gain = wide.value(block.value)
        zeros = int((gain == 0).sum())
        if zeros:
            raise InputError(
                f"{block.value.op.name if isinstance(block.value.op, Param) else block.value.source} has {zeros} zero "
                f"entries of {gain.numel()}: a bond cannot be turned across a gain of zero"
            )
