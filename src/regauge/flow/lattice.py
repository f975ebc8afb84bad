"""The lattice: residual networks with link variables, where the local GL(d) symmetry is exact at a finite step.

    x_{k+1} = U_k x_k + V_k sigma(A_k x_k + a_k) + beta_k
    U_k -> g_{k+1} U_k g_k^-1,  V_k -> g_{k+1} V_k,  A_k -> A_k g_k^-1,  a_k fixed,  beta_k -> g_{k+1} beta_k

With translations x -> g x + c as well (the affine group: beta and a are both there to move) it is of dimension
d^2 + d per inner site:  a_k -> a_k - A_k g_k^-1 c_k,  beta_k -> g_{k+1} beta_k + c_{k+1} - g_{k+1} U_k g_k^-1 c_k.

Any activation, any depth. A plain residual net is the temporal gauge U_k = 1, which leaves one global GL(d). Columns in
formulas; rows x in code, so that U acts as `x @ U.T`.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from regauge.errors import InputError
from regauge.flow.linear import LinearField, wilson_line


class LinkBlock(nn.Module):
    """One site: links U (d, d), V (d, h), A (h, d) and biases a (h,), beta (d,)."""

    def __init__(
        self, link: Tensor, out: Tensor, into: Tensor, inner_bias: Tensor, bias: Tensor, activation: Callable
    ) -> None:
        super().__init__()
        self.link, self.out, self.into = nn.Parameter(link), nn.Parameter(out), nn.Parameter(into)
        self.inner_bias, self.bias = nn.Parameter(inner_bias), nn.Parameter(bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(nn.functional.linear(x, self.into, self.inner_bias))
        return x @ self.link.T + nn.functional.linear(hidden, self.out, self.bias)

    def transformed(self, here: Tensor, there: Tensor, shifts: tuple[Tensor, Tensor] | None = None) -> "LinkBlock":
        """g_k = here, g_{k+1} = there; shifts = (c_k, c_{k+1})."""
        back = torch.linalg.inv(here)
        link, into = there @ self.link.detach() @ back, self.into.detach() @ back
        inner_bias, bias = self.inner_bias.detach().clone(), there @ self.bias.detach()
        if shifts is not None:
            inner_bias, bias = inner_bias - into @ shifts[0], bias + shifts[1] - link @ shifts[0]
        return LinkBlock(link, there @ self.out.detach(), into, inner_bias, bias, self.activation)


class LinkNet(nn.Module):
    """A stack of link blocks; `net.transformed(gs)` acts with g_0, ..., g_L (conjugating the function by the ends)."""

    def __init__(self, blocks: Sequence[LinkBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.sites():
            x = block(x)
        return x

    def sites(self) -> list[LinkBlock]:
        """The blocks, with their type."""
        return cast(list[LinkBlock], list(self.blocks))

    def transformed(self, elements: Sequence[Tensor], shifts: Sequence[Tensor] | None = None) -> "LinkNet":
        """net'(g_0 x + c_0) = g_L net(x) + c_L; with the identity at both ends the same function."""
        sites = len(self.blocks) + 1
        if len(elements) != sites or (shifts is not None and len(shifts) != sites):
            raise InputError(
                f"LinkNet: {sites - 1} blocks have {sites} sites; give one element (and one shift) for each"
            )
        pairs = [None] * (sites - 1) if shifts is None else list(zip(shifts, shifts[1:], strict=False))
        steps = zip(self.sites(), elements, elements[1:], pairs, strict=False)
        return LinkNet([block.transformed(g, h, pair) for block, g, h, pair in steps])

    def temporal(self) -> tuple["LinkNet", Tensor]:
        """(net in temporal gauge U_k = 1, read-out g_L^-1), g_{k+1} = g_k U_k^-1: net(x) = temporal(x) @ readout.T."""
        elements = [torch.eye(self.sites()[0].link.shape[0], dtype=self.sites()[0].link.dtype)]
        for block in self.sites():
            if not float(torch.linalg.cond(block.link.detach())) < 1e12:
                raise InputError("LinkNet.temporal: a link U_k is singular, so the temporal gauge does not exist")
            elements.append(elements[-1] @ torch.linalg.inv(block.link.detach()))
        return self.transformed(elements), torch.linalg.inv(elements[-1])


def link_net(
    dim: int,
    hidden: int,
    depth: int,
    activation: Callable[[Tensor], Tensor] = torch.tanh,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    temporal: bool = False,
) -> LinkNet:
    """A random net of `depth` blocks; links near 1, or exactly 1 (a plain residual net) in temporal gauge."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float) -> Tensor:
        return scale * torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype)

    one = torch.eye(dim, dtype=dtype)
    return LinkNet(
        [
            LinkBlock(
                one.clone() if temporal else one + draw(dim, dim, scale=0.2 / dim**0.5),
                draw(dim, hidden, scale=0.5 / hidden**0.5),
                draw(hidden, dim, scale=1 / dim**0.5),
                draw(hidden, scale=0.3),
                draw(dim, scale=0.1),
                activation,
            )
            for _ in range(depth)
        ]
    )


def linear_chain(field: LinearField, pieces: int, horizon: float = 1.0, steps: int = 100) -> nn.Sequential:
    """A linear neural ODE on a lattice of `pieces` Wilson lines: nn.Linear layers that compute x(T) exactly.

    Its parameters have the interior affine gauge, of dimension (pieces - 1)(d^2 + d).
    """
    layers = []
    for k in range(pieces):
        end = torch.tensor(horizon * (k + 1) / pieces, dtype=torch.float64)
        line, offset = wilson_line(field, end, horizon * k / pieces, steps)
        layer = nn.Linear(line.shape[0], line.shape[0]).to(line.dtype)
        with torch.no_grad():
            layer.weight.copy_(line)
            layer.bias.copy_(offset)
        layers.append(layer)
    return nn.Sequential(*layers)


class EulerField(nn.Module):
    """A field integrated by `steps` Euler steps, as a residual network: x_{k+1} = x_k + h F(t_k, x_k)."""

    def __init__(self, field: Callable[[Tensor, Tensor], Tensor], steps: int, horizon: float = 1.0) -> None:
        super().__init__()
        self.field, self.steps, self.horizon = field, steps, horizon

    def forward(self, x: Tensor) -> Tensor:
        h = self.horizon / self.steps
        for k in range(self.steps):
            x = x + h * self.field(torch.tensor(k * h, dtype=x.dtype), x)
        return x


def linear_links(field: LinearField, steps: int, horizon: float = 1.0) -> tuple[Tensor, Tensor]:
    """Euler links of a linear field: U_k = 1 + h W(t_k) (N, d, d) and beta_k = h b(t_k) (N, d)."""
    h = horizon / steps
    times = [torch.tensor(k * h, dtype=torch.float64) for k in range(steps)]
    weights = torch.stack([field.weight(t) for t in times])
    one = torch.eye(weights.shape[-1], dtype=weights.dtype)
    shift = torch.zeros_like(weights[..., 0]) if field.bias is None else torch.stack([field.bias(t) for t in times])
    return one + h * weights, h * shift


def transform_links(links: Tensor, shifts: Tensor, elements: Tensor) -> tuple[Tensor, Tensor]:
    """U_k -> g_{k+1} U_k g_k^-1, beta_k -> g_{k+1} beta_k, elements (N + 1, d, d): exact at every step size."""
    ahead, here = elements[1:], elements[:-1]
    return ahead @ links @ torch.linalg.inv(here), (ahead @ shifts.unsqueeze(-1)).squeeze(-1)


def run_links(links: Tensor, shifts: Tensor, x: Tensor) -> Tensor:
    """x_{k+1} = U_k x_k + beta_k on rows."""
    for link, shift in zip(links, shifts, strict=True):
        x = x @ link.T + shift
    return x
