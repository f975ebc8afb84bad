"""The measure. A flat sum over parameters is a sum over paths only up to the volume of the fibre, and that volume
varies.

For q(theta) of full rank with Jacobian J, the sum over paths in parameters is (on the image of the network)

    integral dq f(q) = integral dtheta sqrt(det J J^T) g(theta) f(q(theta)),   g a normalised density along each fibre.

For linear maps sqrt(det J J^T) is a constant (`maps`). With trained hidden layers it is not, and a flat dtheta sums
another theory.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from regauge.errors import InputError


def parameters(network: nn.Module) -> tuple[Tensor, dict[str, torch.Size]]:
    """All parameters in one vector, and how to take it apart."""
    state = dict(network.named_parameters())
    return torch.cat([p.detach().reshape(-1) for p in state.values()]), {name: p.shape for name, p in state.items()}


def path(network: nn.Module, times: Tensor, theta: Tensor) -> Tensor:
    """The path (sites * D,) that the network writes with the parameter vector `theta`."""
    shapes = parameters(network)[1]
    parts = torch.split(theta, [s.numel() for s in shapes.values()])
    state = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    return functional_call(network, state, (times,)).reshape(-1)


def log_volume(network: nn.Module, times: Tensor, theta: Tensor) -> Tensor:
    """log sqrt(det J J^T) at `theta` (scalar). Raises InputError where parameters are fewer than path coordinates,
    so that the network reaches only a thin set of paths."""
    jacobian = jacrev(lambda t: path(network, times, t))(theta)
    sites, count = jacobian.shape
    if count < sites:
        raise InputError(
            f"measure of a network with {count} parameters over {sites} path coordinates: its paths are a thin "
            f"set, no sum over "
            f"paths; give it more units or a coarser lattice"
        )
    return 0.5 * torch.linalg.slogdet(jacobian @ jacobian.T).logabsdet
