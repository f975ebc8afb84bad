"""Feedforward nets as neural ODEs with kicks: the lift of a net, of its gauge element, and the way back.

A layer x -> sigma(W x + b) becomes one unit of time. On it the state is a pair (x, z) that starts at (x, 0) and obeys
xdot = 0, zdot = W x + b; its Wilson line is [[1, 0], [W, 1]], so the weight *is* a Wilson line, for any shape. At the
next integer the kick x <- sigma(z), z <- 0 ends the layer. A spatial diffeomorphism diag(g_k, g_{k+1}) on the k-th
interval turns the line into g_{k+1} W g_k^-1 and b into g_{k+1} b, and commutes with the kick iff g_{k+1} intertwines
sigma: positive diagonal times permutation for ReLU, signed permutation for tanh, permutation in general. Those are the
symmetries of the net: what the lattice keeps of the diffeomorphisms. g_0 = 1 and g_L = 1 are the end conditions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from regauge.errors import CheckError, InputError
from regauge.flow.linear import LinearField, wilson_line
from regauge.flow.sites import Kick, Line, Segment, read
from regauge.flow.stack import LiftedStack


class LayerField(LinearField):
    """(x, z) -> (0, W x + b) on one layer's interval: constant, nilpotent, so its Wilson line is exact."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        rows, columns = weight.shape
        big = weight.new_zeros(rows + columns, rows + columns)
        big[columns:, :columns] = weight
        offset = torch.cat([weight.new_zeros(columns), bias])
        super().__init__(big, offset)
        self.columns, self.matrix, self.vector = columns, big, offset

    def line(self) -> tuple[Tensor, Tensor]:
        """(W, b) read off the Wilson line over the interval."""
        end = torch.ones((), dtype=self.matrix.dtype)
        matrix, offset = wilson_line(self, end, 0.0, steps=1)
        return matrix[self.columns :, : self.columns], offset[self.columns :]

    def transformed(self, here: Tensor, there: Tensor) -> "LayerField":
        """The field in the gauge diag(g_k, g_{k+1}), constant on the interval."""
        columns = self.columns
        element = torch.block_diag(here, there)
        weight = element @ self.matrix @ torch.linalg.inv(element)
        return LayerField(weight[columns:, :columns], (element @ self.vector)[columns:])


class KickModule(nn.Module):
    """A kick as a layer."""

    def __init__(self, kick: Kick) -> None:
        super().__init__()
        self.kick, self.name = kick, kick.name

    def forward(self, x: Tensor) -> Tensor:
        return self.kick(x)


class LiftedNet(nn.Module):
    """Layer fields and kicks, nn.Identity where a layer has none; `lines`: the parameters that the layers came from."""

    def __init__(self, fields: Sequence[LayerField], kicks: Sequence[nn.Module], lines: Sequence[Line] = ()) -> None:
        super().__init__()
        self.fields, self.kicks, self.lines = nn.ModuleList(fields), nn.ModuleList(kicks), tuple(lines)

    def forward(self, x: Tensor) -> Tensor:
        for field, kick in zip(self.layers(), self.kicks, strict=True):
            weight, bias = field.line()
            x = kick(nn.functional.linear(x, weight, bias))
        return x

    def layers(self) -> list[LayerField]:
        """The layers' fields, with their type."""
        return cast(list[LayerField], list(self.fields))

    @property
    def widths(self) -> list[int]:
        """n_0, ..., n_L."""
        return [self.layers()[0].columns] + [len(f.matrix) - f.columns for f in self.layers()]

    def transformed(self, elements: Sequence[Tensor], tolerance: float = 1e-9) -> "LiftedNet":
        """Act with g_0, ..., g_L; CheckError names the first site whose element does not commute with its kick."""
        if len(elements) != len(self.fields) + 1:
            raise InputError(f"lift: {len(self.fields)} layers have {len(self.fields) + 1} sites, not {len(elements)}")
        for k, (kick, g) in enumerate(zip(self.kicks, elements[1:], strict=True), 1):
            gap = intertwining_defect(kick, g)
            if gap > tolerance:
                raise CheckError(
                    f"lift, site {k}: the element does not commute with {kick_name(kick)} (defect {gap:.2g}), so "
                    "the function would change; use an element of its intertwiner group (ReLU: positive monomial)"
                )
        fields = [f.transformed(g, h) for f, g, h in zip(self.layers(), elements, elements[1:], strict=False)]
        return LiftedNet(fields, list(self.kicks), self.lines)

    def state_dict_of_model(self) -> dict[str, Tensor]:
        """The Wilson lines under the names of the lifted model's parameters; load them with `load_state_dict`."""
        state: dict[str, Tensor] = {}
        for field, line in zip(self.layers(), self.lines, strict=True):
            weight, bias = field.line()
            state |= line.stored(weight, bias)
        return state

    def lower(self) -> nn.Sequential:
        """Back to a plain stack of nn.Linear and activations."""
        layers: list[nn.Module] = []
        for field, kick in zip(self.layers(), self.kicks, strict=True):
            weight, bias = field.line()
            linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
            linear.weight = nn.Parameter(weight.detach().clone())
            linear.bias = nn.Parameter(bias.detach().clone())
            layers.append(linear)
            if not isinstance(kick, nn.Identity):
                layers.append(kick)
        return nn.Sequential(*layers)


def lift(model: nn.Module, example: Tensor | None = None) -> "LiftedNet | LiftedStack":
    """The lift of any model that the compiler traces and that is a stack: of linear layers and kicks (LiftedNet), or
    with residual blocks, whose fields take unit Euler steps (LiftedStack).

    example: one batch of input states (batch, ..., width); not needed where the first parameter is a linear map (out,
    in). Raises InputError where a part of the model is neither a layer nor keeps the shape of the state.
    """
    if example is None:
        first = next((p for p in model.parameters()), None)
        if first is None or first.dim() != 2:
            raise InputError("lift: the model does not begin with a linear layer, so pass a batch of input states")
        example = first.new_zeros(2, first.shape[1])
    segments = read(model, example)
    layers = _layers(segments)
    if layers is None:
        return LiftedStack(segments)
    fields = [LayerField(line.weight, line.bias) for line, _ in layers]
    kicks = [nn.Identity() if kick is None else KickModule(kick) for _, kick in layers]
    return LiftedNet(fields, kicks, [line for line, _ in layers])


def _layers(segments: Sequence[Segment]) -> list[tuple[Line, Kick | None]] | None:
    """Lines, each with the kick that follows; None if there is anything else."""
    layers: list[tuple[Line, Kick | None]] = []
    for segment in segments:
        match segment:
            case Line():
                layers.append((segment, None))
            case Kick() if layers and layers[-1][1] is None:
                layers[-1] = (layers[-1][0], segment)
            case _:
                return None
    return layers or None


def kick_name(kick: nn.Module) -> str:
    return kick.name if isinstance(kick, KickModule) else type(kick).__name__


def intertwining_defect(kick: nn.Module, element: Tensor) -> float:
    """max |sigma(g x) - g sigma(x)| on random states."""
    probe = 2 * torch.randn(64, len(element), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    g = element.double()
    with torch.no_grad():
        return float((kick(probe @ g.T) - kick(probe) @ g.T).abs().max())


@dataclass(frozen=True)
class SiteElements:
    """g_0, ..., g_L (g_0 = g_L = 1); residual: how well W' = g_{k+1} W g_k^-1, b' = g_{k+1} b hold, relative."""

    elements: tuple[Tensor, ...]
    residual: float


def site_elements(before: LiftedNet, after: LiftedNet) -> SiteElements:
    """Read the gauge element off two settings of one net that differ by monomial matrices at the inner sites.

    Unit by unit: row i of (W', b') is a multiple of the row of (W g_k^-1, b) that it comes from.
    """
    if before.widths != after.widths:
        raise InputError(
            f"site_elements: widths {before.widths} and {after.widths} differ; pass two settings of one net"
        )
    elements = [torch.eye(before.widths[0], dtype=torch.float64)]
    worst = 0.0
    for k, (old, new) in enumerate(zip(before.layers(), after.layers(), strict=True)):
        (w, b), (w_new, b_new) = old.line(), new.line()
        w = w.double() @ torch.linalg.inv(elements[-1])
        source, target = (torch.cat([m, v.double().unsqueeze(-1)], -1) for m, v in ((w, b), (w_new.double(), b_new)))
        if k == len(before.fields) - 1:
            element = torch.eye(len(source), dtype=torch.float64)
        else:
            element = _monomial(source, target)
        worst = max(worst, float((element @ source - target).norm() / target.norm()))
        elements.append(element)
    return SiteElements(tuple(elements), worst)


def _monomial(source: Tensor, target: Tensor) -> Tensor:
    """The monomial g that best satisfies g source = target: rows matched by |cosine|, scales by least squares."""
    from scipy.optimize import linear_sum_assignment

    cosine = nn.functional.normalize(target, dim=-1) @ nn.functional.normalize(source, dim=-1).T
    rows, columns = linear_sum_assignment(-cosine.abs().numpy())
    element = torch.zeros(len(target), len(source), dtype=torch.float64)
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        element[i, j] = (target[i] @ source[j]) / (source[j] @ source[j])
    return element
