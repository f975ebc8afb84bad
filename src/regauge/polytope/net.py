"""Bias-free piecewise-linear networks as values: what is extracted, trained, drawn.

    f(x) = out . phi_L(W_L ... phi_1(W_1 x)),   f(t x) = t f(x) for t > 0

Weights are float64 arrays, or object arrays of Python integers in the certified mode (`rational`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regauge.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Slopes:
    """phi(z) = positive * z for z >= 0 and negative * z for z <= 0, one pair of slopes a unit."""

    positive: Array
    negative: Array


@dataclass(frozen=True)
class Maxout:
    """Unit u is the maximum of the rows u*pieces, ..., u*pieces + pieces - 1 of the weight."""

    pieces: int


Activation = Slopes | Maxout


@dataclass(frozen=True, eq=False)
class Layer:
    """phi(W h). `weight`: (rows, inputs)."""

    weight: Array
    activation: Activation

    @property
    def units(self) -> int:
        rows = len(self.weight)
        return rows // self.activation.pieces if isinstance(self.activation, Maxout) else rows

    def activate(self, z: Array) -> Array:
        """phi on the last axis of z, (..., rows) -> (..., units)."""
        match self.activation:
            case Slopes(positive, negative):
                return np.where(z > 0, positive * z, negative * z)
            case Maxout(pieces):
                return np.max(z.reshape(*z.shape[:-1], -1, pieces), axis=-1)

    def combined(self, h: Array, out: Array) -> Array:
        """out . phi(W h), (n, inputs) -> (n,). It uses phi(z) = negative z + (positive - negative) max(z, 0)."""
        match self.activation:
            case Slopes(positive, negative):
                return h @ (self.weight.T @ (out * negative)) + np.maximum(h @ self.weight.T, 0) @ (
                    out * (positive - negative)
                )
            case Maxout():
                return self.activate(h @ self.weight.T) @ out


@dataclass(frozen=True, eq=False)
class Network:
    """A positively homogeneous piecewise-linear function on R^dim. `scale`: f = (the layers' value) / scale."""

    layers: tuple[Layer, ...]
    out: Array
    scale: Fraction = Fraction(1)

    @property
    def dim(self) -> int:
        return int(self.layers[0].weight.shape[1])

    @property
    def exact(self) -> bool:
        return bool(self.out.dtype == object)

    def __call__(self, x: ArrayLike) -> Array:
        """f at the points x, (..., dim) -> (...)."""
        h = np.asarray(x)
        for layer in self.layers:
            h = layer.activate(h @ layer.weight.T)
        value = h @ self.out
        return value if self.scale == 1 else value / _number(self.scale, self.exact)

    def gradient(self, x: Array) -> Array:
        """The linear piece g with f(x) = g . x at points inside linear regions, (n, dim) -> (n, dim), times scale."""
        first = self.layers[0]
        if len(self.layers) == 1 and isinstance(first.activation, Slopes) and not self.exact:
            positive, negative = first.activation.positive, first.activation.negative
            bend = (self.out * (positive - negative))[:, None] * first.weight
            return (x @ first.weight.T > 0).astype(float) @ bend + (self.out * negative) @ first.weight
        h, slopes = x, []
        for layer in self.layers:
            z = h @ layer.weight.T
            slopes.append(_derivative(layer, z))
            h = layer.activate(z)
        g = np.broadcast_to(self.out, h.shape)
        for layer, slope in zip(reversed(self.layers), reversed(slopes), strict=True):
            if isinstance(layer.activation, Maxout):
                g = np.repeat(g, layer.activation.pieces, axis=-1)
            g = (g * slope) @ layer.weight
        return g

    def section(self, basis: ArrayLike) -> Network:
        """f restricted to the span of the rows of `basis` (k, dim): again a network, on R^k."""
        rows = np.asarray(basis, dtype=object if self.exact else float)
        first = self.layers[0]
        return Network((Layer(first.weight @ rows.T, first.activation), *self.layers[1:]), self.out, self.scale)

    def __repr__(self) -> str:
        widths = " -> ".join(str(layer.units) for layer in self.layers)
        return f"Network({self.dim} -> {widths} -> 1{', exact' if self.exact else ''})"


def _number(value: Fraction, exact: bool) -> Any:
    return value if exact else float(value)


def _derivative(layer: Layer, z: Array) -> Array:
    match layer.activation:
        case Slopes(positive, negative):
            return np.where(z > 0, positive, negative)
        case Maxout(pieces):
            groups = z.reshape(len(z), -1, pieces)
            best = groups.argmax(axis=-1)[..., None]
            return (np.arange(pieces) == best).astype(int).reshape(z.shape)


SLOPES: dict[str, tuple[float, float]] = {"abs": (1.0, -1.0), "relu": (1.0, 0.0)}


def activation(name: str, units: int, slope: float | None = None) -> Slopes:
    """The named activation: "abs", "relu" or "leaky" (slope 0.01 unless told).

    Raises InputError for another name.
    """
    if name == "leaky":
        pair = (1.0, 0.01 if slope is None else slope)
    elif name in SLOPES:
        pair = SLOPES[name]
    else:
        raise InputError(
            f"activation {name!r} is not known here; say one of abs, relu, leaky, "
            "or pass an nn.Module with any positively homogeneous activation."
        )
    return Slopes(np.full(units, pair[0]), np.full(units, pair[1]))


def network(
    weights: list[ArrayLike],
    out: ArrayLike,
    activations: str | Activation | list[str | Activation],
    slope: float | None = None,
) -> Network:
    """A network from explicit weights W_1, ..., W_L (each (rows, inputs)) and the output weights `out` (units,).

    `activations`: one name or `Slopes`/`Maxout` for all layers, or a list with one a layer.
    Raises InputError when shapes do not fit.
    """
    kinds = activations if isinstance(activations, list) else [activations] * len(weights)
    if len(kinds) != len(weights):
        raise InputError(f"{len(weights)} weight matrices but {len(kinds)} activations: give one a layer.")
    layers = []
    for i, (weight, kind) in enumerate(zip(weights, kinds, strict=True)):
        w = np.asarray(weight, dtype=float)
        if w.ndim != 2:
            raise InputError(f"weight {i} has shape {w.shape}; a matrix (rows, inputs) is needed.")
        layers.append(Layer(w, activation(kind, len(w), slope) if isinstance(kind, str) else kind))
    return checked(Network(tuple(layers), np.asarray(out, dtype=float).reshape(-1)))


def checked(net: Network) -> Network:
    """The network itself once its shapes and numbers are in order; InputError otherwise."""
    if not net.layers:
        raise InputError("the network has no nonlinear layer, so {f <= 1} is a half-space, not a body; add one.")
    if net.dim < 2:
        raise InputError(f"the input has dimension {net.dim}; a polytope needs at least 2.")
    width = net.dim
    for i, layer in enumerate(net.layers):
        rows, inputs = layer.weight.shape
        if inputs != width:
            raise InputError(f"weight {i} reads {inputs} inputs, but what comes before it has {width}.")
        if isinstance(layer.activation, Maxout) and rows % layer.activation.pieces:
            raise InputError(
                f"weight {i} has {rows} rows, not a multiple of its {layer.activation.pieces} maxout pieces."
            )
        if not net.exact and not np.isfinite(layer.weight).all():
            raise InputError(f"weight {i} holds a number that is not finite.")
        width = layer.units
    if net.out.shape != (width,):
        raise InputError(f"the output weights have shape {net.out.shape}; ({width},) is needed: one scalar function.")
    return net


def rational(net: Network, denominator: int | None = None) -> Network:
    """The same network in integers: every weight as the fraction that its float is, layers scaled to integers.

    `denominator` bounds the denominators instead (then weights move by less than 1/denominator). Positive factors of
    a layer leave f's shape alone; they are gathered in `scale`.
    """
    if net.exact:
        return net
    scale, layers = net.scale, []
    for layer in net.layers:
        weight, factor = _integers(layer.weight, denominator)
        scale *= factor
        kind = layer.activation
        if isinstance(kind, Slopes):
            both, factor = _integers(np.stack([kind.positive, kind.negative]), denominator)
            kind = Slopes(both[0], both[1])
            scale *= factor
        layers.append(Layer(weight, kind))
    out, factor = _integers(net.out, denominator)
    return Network(tuple(layers), out, scale * factor)


def _integers(values: Array, denominator: int | None) -> tuple[Array, int]:
    fractions = [Fraction(float(v)) for v in values.reshape(-1)]
    if denominator is not None:
        fractions = [f.limit_denominator(denominator) for f in fractions]
    factor = math.lcm(*(f.denominator for f in fractions)) if fractions else 1
    whole = np.empty(len(fractions), dtype=object)
    whole[:] = [int(f * factor) for f in fractions]
    return whole.reshape(values.shape), factor
