"""Modules without memory for their parameters, but with their buffers computed: how to build them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LARGE = 1 << 20  # bytes of zeros that are not written before someone asks for them


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
        with _LazyZeros():
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


class _LazyZeros(TorchFunctionMode):
    """`torch.zeros` from pages that the system fills when they are touched: a parameter of a mixture's experts that starts
    at zero would else cost its gigabytes for the moment before it goes to meta."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.zeros and kwargs.keys() <= {"size", "dtype"} and torch.get_default_device().type == "cpu":
            like: Tensor = func(*args, **kwargs, device="meta")
            if like.numel() * like.itemsize >= LARGE:
                pages = torch.from_numpy(np.zeros(like.numel() * like.itemsize, dtype=np.uint8))
                return pages.view(like.dtype).view(like.shape)
        return func(*args, **kwargs)
