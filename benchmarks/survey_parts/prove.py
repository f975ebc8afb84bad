"""One side of the proof, measured apart from the library: a finite element leaves the function as it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from .build import Subject


class InDouble(TorchFunctionMode):
    """Lift upcasts: whatever asks for single precision, or for none, gets double, so that errors are those of the
    mathematics."""

    def __enter__(self) -> InDouble:
        self.default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_default_dtype(self.default)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        args, kwargs = tree_map(_lifted, (args, dict(kwargs or {})))
        return func(*args, **kwargs)


def _lifted(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def doubled(subject: Subject) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    def lift(x: Any) -> Any:
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    return copy.deepcopy(subject.model).double(), tree_map(lift, subject.args), tree_map(lift, subject.kwargs)


def unsoundness(subject: Subject, gauge: Any, elements: int = 3) -> float:
    """Largest change of the output under sampled elements, in float64, relative to the output's own size."""
    pristine, args, kwargs = doubled(subject)

    def run(state: Mapping[str, Tensor]) -> Tensor:
        model = copy.deepcopy(pristine)  # some keep what they computed from other weights
        model.load_state_dict(state, strict=True)
        torch.manual_seed(0)  # types that hash at random do so alike
        with torch.no_grad(), InDouble():
            return model(*args, **kwargs)

    before = {k: v.clone() for k, v in pristine.state_dict().items()}
    reference = run(before)
    worst = 0.0
    for seed in range(elements):
        after = gauge.sample(torch.Generator().manual_seed(seed)).apply(before)
        change = (run({k: after.get(k, v) for k, v in before.items()}) - reference).abs().max() / reference.abs().max()
        worst = max(worst, float(change)) if torch.isfinite(change) else float("inf")
    return worst
