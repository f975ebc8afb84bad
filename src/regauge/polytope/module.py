"""Between torch modules and networks: reading one off a Sequential, and building one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from regauge.errors import InputError
from regauge.polytope.net import Activation, Array, Layer, Maxout, Network, Slopes, checked


class Abs(nn.Module):
    """|z|, unit by unit."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.abs()


class MaxPieces(nn.Module):
    """Maxout: the maximum over consecutive groups of `pieces` features."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.unflatten(-1, (-1, self.pieces)).amax(-1)


class Pieces(nn.Module):
    """One pair of slopes a unit: positive * max(z, 0) + negative * min(z, 0)."""

    positive: torch.Tensor
    negative: torch.Tensor

    def __init__(self, positive: torch.Tensor, negative: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("positive", positive)
        self.register_buffer("negative", negative)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.positive * z.clamp(min=0) + self.negative * z.clamp(max=0)


def read(model: nn.Module) -> Network:
    """The network of a Sequential (nested or not) of bias-free linear maps and activations, one scalar output.

    An activation is recognised by what it computes, not by its class: any parameter-free or per-unit module that is
    positively homogeneous, and maxout over groups of features. Raises InputError, naming the module, otherwise.
    """
    linear: Array | None = None
    layers: list[Layer] = []
    for name, module in _flat(model, ""):
        if isinstance(module, nn.Linear):
            weight = _weight(name, module)
            if linear is not None and weight.shape[1] != len(linear):
                raise InputError(f"{_label(name, module)} reads {weight.shape[1]} features, but gets {len(linear)}.")
            linear = weight if linear is None else weight @ linear
        elif not isinstance(module, (nn.Identity, nn.Dropout)):
            if linear is None:
                raise InputError(f"{_label(name, module)} stands before the first linear map; put a linear map first.")
            kind = _activation(name, module, len(linear))
            if kind is None:
                continue
            layers.append(Layer(linear, kind))
            linear = np.eye(layers[-1].units)
    if linear is None:
        raise InputError("the model holds no linear map, so there is nothing to extract.")
    if len(linear) != 1:
        raise InputError(f"the model ends in {len(linear)} features; a body needs one scalar function f.")
    return checked(Network(tuple(layers), linear[0]))


def module(net: Network) -> nn.Sequential:
    """A float64 Sequential that computes the network; `read` gives the network back."""
    if net.exact:
        raise InputError("a network in rational numbers has no torch module; build it from the floating one.")
    parts: list[nn.Module] = []
    for layer in net.layers:
        parts.append(_linear(layer.weight))
        match layer.activation:
            case Maxout(pieces):
                parts.append(MaxPieces(pieces))
            case Slopes(positive, negative) if (positive == 1).all() and (negative == -1).all():
                parts.append(Abs())
            case Slopes(positive, negative) if (positive == 1).all() and (negative == negative[0]).all():
                parts.append(nn.ReLU() if negative[0] == 0 else nn.LeakyReLU(float(negative[0])))
            case Slopes(positive, negative):
                parts.append(Pieces(torch.tensor(positive), torch.tensor(negative)))
    return nn.Sequential(*parts, _linear(net.out[None] / float(net.scale)))


def _linear(weight: Array) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(weight))
    return linear


def _flat(model: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(model, nn.Sequential):
        for key, child in model.named_children():
            yield from _flat(child, f"{name}.{key}" if name else key)
    else:
        yield name, model


def _label(name: str, module: nn.Module) -> str:
    return f"{name or 'the model'} ({type(module).__name__})"


def _weight(name: str, module: nn.Linear) -> Array:
    if module.bias is not None and bool(module.bias.detach().abs().max() > 0):
        raise InputError(
            f"{_label(name, module)} has a bias, so f is not homogeneous "
            "and {f <= 1} is no star body; build it with bias=False."
        )
    return module.weight.detach().double().cpu().numpy()


def _activation(name: str, module: nn.Module, width: int) -> Activation | None:
    """What the module does to `width` features, found by probing; None for the identity."""
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(64, width, generator=generator, dtype=torch.float64)
    probe = probe * torch.logspace(-2, 2, 64, dtype=torch.float64)[:, None]
    dtype = next((p.dtype for p in module.parameters()), torch.float64)
    was = module.training
    module.eval()
    try:
        with torch.no_grad():
            ones = torch.ones(1, width, dtype=dtype)
            up, down, out = (module(t.to(dtype)).double() for t in (ones, -ones, probe))
    except Exception as error:
        raise InputError(f"{_label(name, module)} could not be evaluated on {width} features: {error}") from error
    finally:
        module.train(was)
    close = 1e-5 if dtype != torch.float64 else 1e-12
    size = probe.abs().amax(dim=1, keepdim=True)
    if out.shape == probe.shape:
        positive, negative = up[0], -down[0]
        expected = positive * probe.clamp(min=0) + negative * probe.clamp(max=0)
        if bool(((out - expected).abs() <= close * size).all()):
            if bool((positive == 1).all() and (negative == 1).all()):
                return None
            return Slopes(positive.numpy(), negative.numpy())
    elif out.ndim == 2 and len(out) == 64 and out.shape[1] and width % out.shape[1] == 0:
        pieces = width // out.shape[1]
        expected = probe.unflatten(-1, (-1, pieces)).amax(-1)
        if bool(((out - expected).abs() <= close * size).all()):
            return Maxout(pieces)
    raise InputError(
        f"{_label(name, module)} is not positively homogeneous unit by unit (nor a maxout over consecutive features), "
        "so {f <= 1} is no polyhedral body; use relu, leaky relu, abs, prelu or maxout."
    )
