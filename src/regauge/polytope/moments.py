"""The exact loss E (f - 1)^2 over the unit sphere of a network of any depth, cone by cone, without sampling.

On a cone where f = g . x the loss is g.M g - 2 g.m + share, with the cone's moments m = E x, M = E x x^T. For d = 3 and a
spherical triangle with corners a, b, c, inner wall normals n_k, wall angles t_k and solid angle s, Gauss's theorem gives

    integral x = sum_k t_k n_k / 2,   integral x x^T = (s 1 + sum_k tan(t_k / 2) n_k (a_k + b_k)^T) / 3

Walls that move with the weights add nothing to the gradient, because f does not jump there. In higher dimensions the
same code runs on the nodes of a quadrature rule, each a cone of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from regauge.errors import CheckError
from regauge.polytope.body import inner_points, simplices
from regauge.polytope.net import Array, Layer, Maxout, Network, Slopes
from regauge.polytope.quadrature import rule_of_size
from regauge.polytope.region import regions

EXACT_DIMS = (2, 3)
TOLERANCES = (1e-13, 1e-11, 1e-9, 1e-7)


@dataclass(frozen=True, eq=False)
class Cones:
    """inside: (C, d) a point in each cone; first: (C, d) and second: (C, d, d) moments under the uniform law."""

    inside: Array
    first: Array
    second: Array


def cones_of(net: Network) -> Cones:
    """The linear regions of the network (d = 2 or 3) with their exact moments."""
    for tolerance in TOLERANCES:
        try:
            found = regions(net, tolerance)
            break
        except CheckError:
            if tolerance == TOLERANCES[-1]:
                raise
    rays = found.rays / np.linalg.norm(found.rays, axis=1, keepdims=True)
    corners, owner = simplices(found.fan)
    first, second = (_arcs if net.dim == 2 else _triangles)(rays[corners])
    inside = inner_points(found.fan, rays)
    size = len(inside)
    total = np.zeros((size, net.dim)), np.zeros((size, net.dim, net.dim))
    np.add.at(total[0], owner, first)
    np.add.at(total[1], owner, second)
    return Cones(inside, *total)


def nodes_of(dim: int, points: int) -> Cones:
    """A quadrature rule of at least `points` nodes, as cones."""
    nodes, weight = rule_of_size(dim, points)
    first = weight[:, None] * nodes
    return Cones(nodes, first, first[:, :, None] * nodes[:, None])


def _arcs(corners: Array) -> tuple[Array, Array]:
    """Moments of arcs between unit vectors (n, 2, 2)."""
    a, b = corners[:, 0], corners[:, 1]
    middle = a + b
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    across = np.stack([-middle[:, 1], middle[:, 0]], axis=1)
    half = np.arctan2(np.abs((a * across).sum(axis=1)), (a * middle).sum(axis=1))
    along = half + np.sin(2 * half) / 2
    second = along[:, None, None] * middle[:, :, None] * middle[:, None]
    second += (2 * half - along)[:, None, None] * across[:, :, None] * across[:, None]
    return 2 * np.sin(half)[:, None] * middle / (2 * np.pi), second / (2 * np.pi)


def _triangles(corners: Array) -> tuple[Array, Array]:
    """Moments of spherical triangles with unit corners (n, 3, 3)."""
    volume = np.linalg.det(corners)
    corners = np.where((volume < 0)[:, None, None], corners[:, [0, 2, 1]], corners)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    base = 1 + (a * b).sum(axis=1) + (b * c).sum(axis=1) + (c * a).sum(axis=1)
    solid = 2 * np.arctan2(np.abs(volume), base)  # van Oosterom and Strackee
    first, second = np.zeros((len(a), 3)), solid[:, None, None] * np.eye(3)
    for tail, head in ((a, b), (b, c), (c, a)):
        normal = np.cross(tail, head)
        sine, cosine = np.linalg.norm(normal, axis=1), (tail * head).sum(axis=1)
        normal /= np.maximum(sine, 1e-300)[:, None]
        angle = np.arctan2(sine, cosine)
        first += 0.5 * angle[:, None] * normal
        second += np.tan(angle / 2)[:, None, None] * normal[:, :, None] * (tail + head)[:, None]
    return first / (4 * np.pi), second / (12 * np.pi)


def loss_and_gradient(net: Network, cones: Cones) -> tuple[float, list[Array]]:
    """E (f - 1)^2 and its derivatives in every layer's weight and, last, in the output weights."""
    jacobians, slopes = [np.broadcast_to(np.eye(net.dim), (len(cones.inside), net.dim, net.dim))], []
    h = cones.inside
    for layer in net.layers:
        z = h @ layer.weight.T
        slopes.append(_slopes(layer, z))
        h = layer.activate(z)
        step = slopes[-1][:, :, None] * (layer.weight @ jacobians[-1])
        if isinstance(layer.activation, Maxout):
            step = step.reshape(len(h), layer.units, layer.activation.pieces, net.dim).sum(axis=2)
        jacobians.append(step)
    g = net.out @ jacobians[-1]
    bent = np.einsum("cij,cj->ci", cones.second, g)
    value = float(((bent - 2 * cones.first) * g).sum() + 1)
    pull = 2 * (bent - cones.first)  # dL / dg of every cone
    moved = [np.einsum("cni,ci->cn", jacobian, pull) for jacobian in jacobians]
    gradients, back = [moved[-1].sum(axis=0)], np.broadcast_to(net.out, moved[-1].shape)
    for layer, slope, below in zip(reversed(net.layers), reversed(slopes), reversed(moved[:-1]), strict=True):
        if isinstance(layer.activation, Maxout):
            back = np.repeat(back, layer.activation.pieces, axis=1)
        back = back * slope
        gradients.insert(0, back.T @ below)
        back = back @ layer.weight
    return value, gradients


def _slopes(layer: Layer, z: Array) -> Array:
    match layer.activation:
        case Slopes(positive, negative):
            return np.where(z > 0, positive, negative)
        case Maxout(pieces):
            best = z.reshape(len(z), -1, pieces).argmax(axis=-1)[..., None]
            return (np.arange(pieces) == best).astype(float).reshape(z.shape)


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss as a function of all weights in one vector; `like` gives shapes and activations."""

    like: Network
    cones: Callable[[Network], Cones]

    def network(self, x: Array) -> Network:
        layers, start = [], 0
        for layer in self.like.layers:
            size = layer.weight.size
            layers.append(Layer(x[start : start + size].reshape(layer.weight.shape), layer.activation))
            start += size
        return Network(tuple(layers), x[start:])

    def vector(self, net: Network) -> Array:
        return np.concatenate([*(layer.weight.reshape(-1) for layer in net.layers), net.out / float(net.scale)])

    def both(self, x: Array) -> tuple[float, Array]:
        net = self.network(x)
        value, gradients = loss_and_gradient(net, self.cones(net))
        return value, np.concatenate([part.reshape(-1) for part in gradients])

    def value(self, x: Array) -> float:
        return self.both(x)[0]

    def gradient(self, x: Array) -> Array:
        return self.both(x)[1]

    def hessian(self, x: Array) -> Array:
        """By central differences of the gradient."""
        step = 1e-6 * max(1.0, float(np.abs(x).max()))
        rows = [(self.gradient(x + e) - self.gradient(x - e)) / (2 * step) for e in step * np.eye(len(x))]
        return (np.array(rows) + np.array(rows).T) / 2


def objective(net: Network, points: int = 6000) -> Objective:
    """The exact loss for d = 2 and 3; above, the mean over a quadrature rule of at least `points` nodes."""
    if net.dim in EXACT_DIMS:
        return Objective(net, cones_of)
    rule = nodes_of(net.dim, points)
    return Objective(net, lambda _: rule)
