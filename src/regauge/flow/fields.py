"""Vector fields dx/dt = F(t, x): what the package takes and returns, and doors to other libraries' conventions.

A field is any callable (t, x) -> (..., d), with t a scalar tensor or one time per sample. torchdiffeq calls it as it
is. flow_matching calls `model(x, t)` or `model(x=..., t=...)`: `from_xt` and `to_xt` turn one into the other. torchdyn
calls `f(t, x, args=...)`: `to_torchdyn`. diffrax calls `f(t, y, args)` on JAX arrays: `to_jax`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jacfwd, vjp, vmap

from regauge.errors import InputError

Field = Callable[[Tensor, Tensor], Tensor]


class FieldFromXT(nn.Module):
    """F(t, x) = model(x, t, **extras), the time expanded to one per sample if the model wants that."""

    def __init__(self, model: Callable[..., Tensor], per_sample_time: bool = True, **extras: object) -> None:
        super().__init__()
        self.model, self.per_sample_time, self.extras = model, per_sample_time, extras

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        if self.per_sample_time and t.dim() == 0:
            t = t.expand(x.shape[0])
        return self.model(x, t, **self.extras)


class FieldToXT(nn.Module):
    """model(x, t) = F(t, x): the calling convention of flow_matching's solvers and torchcfm's models."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field

    def forward(self, x: Tensor, t: Tensor, **extras: object) -> Tensor:
        return self.field(t, x)


def from_xt(model: Callable[..., Tensor], per_sample_time: bool = True, **extras: object) -> FieldFromXT:
    """A field F(t, x) from a model that takes (x, t)."""
    return FieldFromXT(model, per_sample_time, **extras)


def to_xt(field: Field) -> FieldToXT:
    """A model that takes (x, t) from a field F(t, x)."""
    return FieldToXT(field)


class FieldWithArgs(nn.Module):
    """f(t, x, args) = F(t, x): the calling convention of torchdyn, which tells it by the names of the arguments."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, x: Tensor, args: object = None) -> Tensor:
        return self.field(t, x)


def to_torchdyn(field: Field) -> FieldWithArgs:
    """A vector field for torchdyn's `NeuralODE` and `ODEProblem` from a field F(t, x)."""
    return FieldWithArgs(field)


def to_jax(field: Field) -> Callable[..., Any]:
    """A vector field (t, y, args) on JAX arrays, for `diffrax.ODETerm`; y (..., d), in its own precision.

    torch computes it on the host, so it runs under jit and vmap but has no gradient in JAX. Needs jax.
    """
    try:
        import jax
        import numpy
    except ImportError as error:
        raise InputError("to_jax: jax is not installed; pip install diffrax, or stay with torchdiffeq") from error

    def on_host(t: Any, y: Any) -> Any:
        state = torch.from_numpy(numpy.array(y))
        with torch.no_grad():
            return field(torch.from_numpy(numpy.array(t)).to(state.dtype), state).numpy()

    def vector_field(t: Any, y: Any, args: Any = None) -> Any:
        return jax.pure_callback(on_host, jax.ShapeDtypeStruct(y.shape, y.dtype), t, y, vmap_method="sequential")

    return vector_field


def divergence(field: Field, t: Tensor, x: Tensor) -> Tensor:
    """div F at every sample, exactly, from the Jacobian's trace: (batch, d) -> (batch,)."""

    def at(z: Tensor, q: Tensor) -> Tensor:
        return field(q, z.unsqueeze(0)).squeeze(0)

    times = t.expand(x.shape[:-1])
    jac = vmap(jacfwd(at))(x.reshape(-1, x.shape[-1]), times.reshape(-1))
    return torch.diagonal(jac, dim1=-2, dim2=-1).sum(-1).reshape(x.shape[:-1])


def divergence_estimate(field: Field, t: Tensor, x: Tensor, probe: Tensor) -> Tensor:
    """Hutchinson's estimate e^T (dF/dx) e of the divergence with a fixed probe e of x's shape: (...,)."""
    pulled = vjp(lambda z: field(t, z), x)[1](probe)[0]
    return (pulled * probe).sum(-1)


class LogDensityField(nn.Module):
    """The augmented field of a continuous normalising flow: state (x, l) with dl/dt = -div F, packed as (..., d + 1).

    Integrate from (x0, log p0(x0)) and read log p_T(x_T) in the last component.
    """

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        x = state[..., :-1]
        own = getattr(self.field, "divergence", None)
        div = own(t, x) if own is not None else divergence(self.field, t, x)
        return torch.cat([self.field(t, x), -div.unsqueeze(-1)], -1)
