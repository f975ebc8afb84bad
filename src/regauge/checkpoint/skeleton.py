"""Modules without memory for their parameters, but with their buffers computed: how to build and how to trace them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Within, every parameter that a module registers lands on the meta device; buffers stay real.

    Buffers that no file holds (position tables, masks) are constants of the function: a model whose constants are
    unknown has no known symmetries. `torch.device("meta")` alone would lose them."""
    register = nn.Module.register_parameter

    def register_on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


@contextmanager
def posing_as_cpu(model: nn.Module) -> Iterator[None]:
    """Within, the meta parameters of `model` pass for CPU tensors without data, so that they trace together with real
    buffers and inputs. Ties stay ties."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    cpu = torch.device("cpu")
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.is_meta
    ]
    posing = {}
    for _, _, parameter in places:
        fake = mode.fake_tensor_converter.from_meta_and_device(mode, parameter.detach(), cpu)
        posing[id(parameter)] = nn.Parameter(fake, requires_grad=False)
    try:
        for module, name, parameter in places:
            module._parameters[name] = posing[id(parameter)]
        yield
    finally:
        for module, name, parameter in places:
            module._parameters[name] = parameter
