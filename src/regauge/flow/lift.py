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
from regauge.flow.lattice import LinkNet
from regauge.flow.linear import LinearField, wilson_line


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


class LiftedNet(nn.Module):
    """Layer fields and kicks; the last layer may have none (nn.Identity)."""

    def __init__(self, fields: Sequence[LayerField], kicks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.fields, self.kicks = nn.ModuleList(fields), nn.ModuleList(kicks)

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
                    f"lift, site {k}: the element does not commute with {type(kick).__name__} (defect {gap:.2g}), so "
                    "the function would change; use an element of its intertwiner group (ReLU: positive monomial)"
                )
        fields = [f.transformed(g, h) for f, g, h in zip(self.layers(), elements, elements[1:], strict=False)]
        return LiftedNet(fields, list(self.kicks))

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


def lift(model: nn.Sequential) -> LiftedNet:
    """The lift of a stack of nn.Linear and elementwise activation modules; anything else is refused by name."""
    fields: list[LayerField] = []
    kicks: list[nn.Module] = []
    for name, module in model.named_children():
        if isinstance(module, nn.Linear):
            if len(kicks) < len(fields):
                kicks.append(nn.Identity())
            bias = module.weight.new_zeros(module.out_features) if module.bias is None else module.bias
            fields.append(LayerField(module.weight.detach(), bias.detach()))
        elif fields and len(kicks) < len(fields) and _is_elementwise(module):
            kicks.append(module)
        else:
            raise InputError(
                f"lift, layer {name}: {type(module).__name__} is neither a linear map nor an elementwise kick after "
                "one; lift takes stacks of nn.Linear and activations (residual stacks: lift_residual)"
            )
    if len(kicks) < len(fields):
        kicks.append(nn.Identity())
    if not fields:
        raise InputError("lift: the model has no nn.Linear layer")
    return LiftedNet(fields, kicks)


def _is_elementwise(module: nn.Module) -> bool:
    """Acts on every entry alone: no parameters, and commutes with a permutation of random entries."""
    if any(True for _ in module.parameters()):
        return False
    probe = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    changed = probe.clone()
    changed[:, 3] += 1.0
    with torch.no_grad():
        before, after = module(probe), module(changed)
    others = [0, 1, 2, 4, 5, 6]
    return before.shape == probe.shape and torch.equal(before[:, others], after[:, others])


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


def lift_residual(net: LinkNet) -> "PiecewiseField":
    """The field whose unit Euler steps are the blocks of a link net: F = (U_k - 1) x + V_k sigma(...) + beta_k."""
    return PiecewiseField(net)


class PiecewiseField(nn.Module):
    """F(t, x) = block_k(x) - x for t in [k, k + 1): integrate with Euler from 0 to L in L steps to get the net back."""

    def __init__(self, net: LinkNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        blocks = self.net.blocks
        return blocks[min(int(t), len(blocks) - 1)](x) - x
