"""Parameters without memory, traced together with real inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def posing_as_cpu(model: nn.Module) -> Iterator[None]:
    """Within, the meta parameters and buffers of `model` pass for CPU tensors without data, so that they trace together with
    real buffers and inputs. Ties stay ties."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    cpu = torch.device("cpu")
    places = [
        (held, name, tensor)
        for module in model.modules()
        for held in (module._parameters, module._buffers)
        for name, tensor in held.items()
        if tensor is not None and tensor.is_meta
    ]
    posing: dict[int, torch.Tensor] = {}
    for _, _, tensor in places:
        fake = mode.fake_tensor_converter.from_meta_and_device(mode, tensor.detach(), cpu)
        posing[id(tensor)] = nn.Parameter(fake, requires_grad=False) if isinstance(tensor, nn.Parameter) else fake
    try:
        for held, name, tensor in places:
            held[name] = posing[id(tensor)]  # type: ignore[assignment]
        yield
    finally:
        for held, name, tensor in places:
            held[name] = tensor  # type: ignore[assignment]
