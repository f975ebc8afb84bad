"""What a Jacobian at one point would say of the tape, of rounding or of a dead unit, and not of the function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Uncut(TorchFunctionMode):
    """Gradients left whole: `no_grad`, `detach` and the padding row of an embedding change no value, only the derivative
    that autograd reports."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is torch._C._set_grad_enabled:
            return None
        if func in (Tensor.detach, Tensor.detach_, torch.detach, torch.detach_, Tensor.data.__get__):  # type: ignore[attr-defined]
            return args[0]
        if func in (F.embedding, torch.embedding):
            row = None if func is F.embedding else -1
            args, kwargs = (*args[:2], *(row for _ in args[2:3]), *args[3:]), dict(kwargs or {})
            kwargs |= {"padding_idx": row} if "padding_idx" in kwargs else {}
        return func(*args, **(kwargs or {}))


class Smeared(TorchFunctionMode):
    """A jump as a rise over some width: at a point, no derivative sees that the place of a jump moves."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func in (F.threshold, F.hardshrink):
            x, *rest = (*args, *(kwargs or {}).values())
            if func is F.threshold:
                return rest[1] + (x - rest[1]) * torch.sigmoid(4 * (x - rest[0]))
            return x * torch.sigmoid(4 * (x.abs() - (rest or [0.5])[0]))
        return func(*args, **(kwargs or {}))
