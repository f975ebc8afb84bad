"""Lift a model to float64 although its code asks for less.

Library modules compute norms and softmaxes in float32 (`x.float()`, `softmax(..., dtype=torch.float32)`), so a model
converted to float64 still rounds near 1.6e-7 and a proof to 1e-9 is impossible. `lifted()` rewrites every request for
a smaller floating type into float64, below autograd and below functorch, so it works under `torch.autograd.grad`,
`torch.func` and batched backward passes alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

LOW_REAL = frozenset({torch.float32, torch.bfloat16, torch.float16})
LOW_COMPLEX = frozenset({torch.complex64, torch.complex32})
LOW = LOW_REAL | LOW_COMPLEX
WIDE = frozenset({torch.float64, torch.complex128})


class _Lift(TorchDispatchMode):
    """Rewrites dtype requests and mixed-precision operands to float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = tuple(wide(a) if isinstance(a, torch.dtype) else a for a in args)
        kwargs = {k: wide(v) if isinstance(v, torch.dtype) else v for k, v in (kwargs or {}).items()}
        if _mixes_precision((*args, *kwargs.values())) and not func._schema.is_mutable:
            args, kwargs = tree_map_only(Tensor, widen, (args, kwargs))
        return func(*args, **kwargs)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that replaces a requested one: float64 for floats, complex128 for complex, else the same."""
    return torch.float64 if dtype in LOW_REAL else torch.complex128 if dtype in LOW_COMPLEX else dtype


def widen(tensor: Tensor) -> Tensor:
    """The tensor in its wide dtype (itself if it is already there)."""
    return tensor.to(wide(tensor.dtype))


def _mixes_precision(arguments: Any) -> bool:
    """Whether tensors among the arguments (or in lists among them) are both below float64 and in it."""
    dtypes: set[torch.dtype] = set()
    for argument in arguments:
        if isinstance(argument, Tensor):
            dtypes.add(argument.dtype)
        elif isinstance(argument, (list, tuple)):
            dtypes.update(a.dtype for a in argument if isinstance(a, Tensor))
    return not LOW.isdisjoint(dtypes) and not WIDE.isdisjoint(dtypes)


@contextmanager
def lifted() -> Iterator[None]:
    """Within, floating computations on float64 tensors stay in float64.

    The default dtype becomes float64 too, and attention runs in its plain form (the fused kernels have neither float64
    on all platforms nor a batched backward pass). Both are restored on exit.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with sdpa_kernel(SDPBackend.MATH), _Lift():
            yield
    finally:
        torch.set_default_dtype(default)


STABILISED = frozenset(
    {
        "layer_norm",
        "batch_norm",
        "group_norm",
        "instance_norm",
        "rms_norm",
        "add",
        "add_",
        "__add__",
        "__radd__",
        "__iadd__",
    }
)
TINY, PLAIN = 1e-3, 3e-2
SLOPE = 0.7
APART = 1e6  # two numbers that differ by more are no two of a kind: one stands for nothing


class plain_eps(TorchFunctionMode):  # noqa: N801 (used as a context manager)
    """Within, a stabilising constant in (0, 1e-3) that is added to something, or given to a norm, is 0.03 instead.

    Whether a norm has an eps decides its symmetry, its size does not; but with eps = 1e-12 the broken scale would
    leave a singular value at the level of rounding and count as a symmetry. Zero stays zero.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in STABILISED:
            args = tuple(map(_plain, args))
            kwargs = {k: _plain(v) for k, v in kwargs.items()}
        return func(*args, **kwargs)


class leaky(TorchFunctionMode):  # noqa: N801 (used as a context manager)
    """Within, relu has slope 0.7 on the left, and the larger of two is the second plus a leaky relu of what the first is
    more. It counts the calls it changed.

    Each pair of functions is positively homogeneous of degree one and nothing more, so they share their symmetries; but a
    leaky unit is never dead at the sampled point, and in a deep convolutional net some relu always is. So with two of which
    always the same is the larger, unless one of the two is a number that stands for minus infinity.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("relu", "relu_"):
            self.calls += 1
            return torch.nn.functional.leaky_relu(args[0] if args else kwargs["input"], SLOPE)
        if func in (torch.maximum, Tensor.maximum):
            x, y = [*args, *(kwargs or {}).values()][:2]
            if x.is_floating_point() and y.is_floating_point() and bool(((x - y).abs() < APART).all()):
                self.calls += 1
                return y + torch.nn.functional.leaky_relu(x - y, SLOPE)
        return func(*args, **(kwargs or {}))


def _plain(value: Any) -> Any:
    return PLAIN if isinstance(value, float) and 0 < value < TINY else value
