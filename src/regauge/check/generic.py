"""Generic parameters and inputs: where dimensions may be counted.

At initialisation gains are one and biases zero, and many more directions leave the function unchanged to first order
than at almost every other point. Dimensions are therefore measured at random parameters, in float64.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from regauge.errors import InputError


def double_copy(model: nn.Module) -> nn.Module:
    """A deep copy in float64, ties and train/eval mode kept, every parameter ready for gradients.

    Raises InputError for a model on the meta device: it has no values to compute with.
    """
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            raise InputError(f"`{name}` is on the meta device and has no values: load weights, or pass a small copy")
    twin = copy.deepcopy(model).double()
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    for module in twin.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            # padding_idx makes autograd drop the gradient of a row that the function does read
            module.padding_idx = None
    return twin


@torch.no_grad()
def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Overwrite every floating parameter (and batch statistic) of `model` by a generic value.

    Vectors, that is gains, biases and scales, vary by 0.3 (or their own spread) about their mean; larger tensors are
    normal with variance 1 / fan. Persistent buffers that are constant zero or one are running statistics: they become
    generic, the variances positive. Other buffers (position tables, masks) are part of the function and stay.
    """
    normal = lambda t: torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t)  # noqa: E731
    for parameter in model.parameters():
        if not parameter.is_floating_point():
            continue
        if sum(n > 1 for n in parameter.shape) <= 1:
            spread = max(0.3, _spread(parameter))
            parameter.copy_(parameter.mean() + spread * normal(parameter))
        else:
            fan = parameter.numel() / max(parameter.shape)
            parameter.copy_(max(_spread(parameter), fan**-0.5) * normal(parameter))
    persistent = model.state_dict(keep_vars=True)
    for name, buffer in model.named_buffers():
        if name not in persistent or not buffer.is_floating_point() or buffer.numel() < 2:
            continue
        if bool((buffer == 0).all()):
            buffer.copy_(0.3 * normal(buffer))
        elif bool((buffer == 1).all()):
            buffer.copy_(torch.exp(0.3 * normal(buffer)))


def _spread(tensor: Tensor) -> float:
    return float(tensor.detach().double().std()) if tensor.numel() > 1 else 0.0


def resample(inputs: Any, generator: torch.Generator) -> Any:
    """Fresh inputs of the same shapes: floats normal with the example's mean and spread, integers uniform within the
    example's range; booleans and everything that is no tensor stay. Floats come back in float64."""

    def fresh(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bool or tensor.numel() == 0:
            return tensor
        if tensor.is_floating_point():
            return tensor.double().mean() + _spread(tensor) * _noise(tensor.shape, generator)
        low, high = int(tensor.min()), int(tensor.max())
        return torch.randint(low, high + 1, tensor.shape, generator=generator, dtype=tensor.dtype)

    return tree_map_only(Tensor, fresh, inputs)


def _noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Normal noise, white and of every coarser grain (a sample, a channel of a sample, ...), each sample times a
    log-normal amplitude.

    Averages over positions then differ from sample to sample as much as single entries do, and some samples are large
    beside all biases: a ReLU behind a pool or deep in a net is seen on both sides of its kink.
    """
    rank = len(shape)
    grains = [
        torch.randn((*shape[:k], *([1] * (rank - k))), generator=generator, dtype=torch.float64)
        for k in range(1, rank + 1)
    ]
    amplitude = torch.exp(torch.randn((*shape[:1], *([1] * (rank - 1))), generator=generator, dtype=torch.float64))
    return amplitude * sum(grains, torch.zeros(shape, dtype=torch.float64)) / max(rank, 1) ** 0.5


def widened(inputs: Any) -> Any:
    """The same inputs with floating tensors in float64."""
    return tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
