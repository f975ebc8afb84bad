"""From a network that is nearly trained to the minimum next to it, to the last digit."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize

from regauge.polytope.moments import Objective, objective
from regauge.polytope.net import Network, Slopes
from regauge.polytope.train import Trained, minimise, polish, single, with_signs

NEWTON_SIZE = 300  # weights; a Hessian costs two gradients for each


def settle(net: Network, *, points: int = 6000, rounds: int = 4) -> Trained:
    """Minimise E (f - 1)^2 over the unit sphere from this network on: L-BFGS, then Newton steps.

    One hidden layer of equal units, phi(z) = z above zero, is done in closed form in every dimension, and the signs of
    its output weights are kept. Other networks, of any depth, are integrated cone by cone, without sampling, for d = 2
    and 3, and over a quadrature rule of at least `points` nodes above; `rounds` of 300 L-BFGS and 10 Newton steps
    (these up to 300 weights) at most. `Trained.gradient` says how far it came: a unit that dies, or for d > 3 a node
    of the rule that meets a wall, is a kink of the loss, where the gradient does not vanish.
    """
    layer = net.layers[0]
    kind = layer.activation
    if len(net.layers) > 1 or not isinstance(kind, Slopes) or (kind.positive != 1).any() or np.ptp(kind.negative):
        return _deep(objective(net, points), net, rounds)
    alpha, n, d = float(kind.negative[0]), layer.units, net.dim
    signs = np.sign(net.out)
    start = layer.weight * np.abs(net.out)[:, None]
    return minimise(with_signs(signs, d, alpha), start.reshape(-1), lambda x: single(x.reshape(n, d), signs, alpha), 0)


def _deep(loss: Objective, net: Network, rounds: int) -> Trained:
    x, steps = loss.vector(net), 0
    for _ in range(rounds):
        found = minimize(
            loss.both, x, jac=True, method="L-BFGS-B",
            options={"maxiter": 300, "maxfun": 1000, "ftol": 0.0, "gtol": 1e-9, "maxcor": 30},
        )  # fmt: skip
        x, more = found.x, 0
        if len(x) <= NEWTON_SIZE:
            x, more = polish((loss.value, loss.gradient, loss.hessian), x, limit=10)
        steps += int(found.nit) + more
        if found.nit + more < 3 or np.abs(loss.gradient(x)).max() < 1e-13:
            break
    value, gradient = loss.both(x)
    done = loss.network(x)
    return Trained(done, math.sqrt(max(value, 0.0)), float(np.abs(gradient).max()), steps, (done,))
