"""What a Jacobian at one point would say of the tape, of rounding or of a dead unit, and not of the function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

CLOSED = -1e30  # masks add this or less to scores


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
    """A jump as a rise over some width: at a point, no derivative sees that the place of a jump moves.

    Scores that are left out where something exceeds a number that is not zero (so that there is no scale to break) count
    the less, the further it exceeds that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.excess: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func in (F.threshold, F.hardshrink):
            x, *rest = (*args, *(kwargs or {}).values())
            if func is F.threshold:
                return rest[1] + (x - rest[1]) * torch.sigmoid(4 * (x - rest[0]))
            return x * torch.sigmoid(4 * (x.abs() - (rest or [0.5])[0]))
        if func is Tensor.masked_fill and len(args) == 3 and args[2] == float("-inf") and id(args[1]) in self.excess:
            return args[0] + F.logsigmoid(-4 * self.excess[id(args[1])][1])
        result = func(*args, **(kwargs or {}))
        if func in (Tensor.gt, Tensor.__gt__, torch.gt) and isinstance(args[1], float) and args[1]:
            if args[0].requires_grad:
                self.excess[id(result)] = result, args[0] - args[1]
        return result


class Choices(TorchFunctionMode):
    """What choices are made from, as further outputs: no derivative sees that another one would be chosen.

    scores: rows of what `topk` and `argmax` pick from, centred and of unit norm, since neither what is added to all nor a
    positive factor changes a choice. Where all are taken nothing is chosen; nor from what a mask has closed."""

    def __init__(self) -> None:
        super().__init__()
        self.scores: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        given = dict(kwargs or {})
        result = func(*args, **given)
        if func in (torch.topk, Tensor.topk, torch.argmax, Tensor.argmax):
            x = args[0] if args else given["input"]
            taken = 1 if func in (torch.argmax, Tensor.argmax) else (args[1] if len(args) > 1 else given["k"])
            place = 1 if func in (torch.argmax, Tensor.argmax) else 2
            dim = args[place] if len(args) > place else given.get("dim", -1)
            if isinstance(x, Tensor) and x.requires_grad and dim is not None:
                self.scores.append(_directions(x.movedim(dim, -1), taken))
        return result


def _directions(scores: Tensor, taken: int) -> Tensor:
    """Rows of scores of which so many are taken, up to a shift and a positive factor; zeros where there is no choice."""
    is_open = scores.detach() > CLOSED
    count = is_open.sum(-1, keepdim=True)
    kept = scores.where(is_open, 0.0)
    centred = (kept - kept.sum(-1, keepdim=True) / count.clamp_min(1)).where(is_open & (count > taken), 0.0)
    size = centred.norm(dim=-1, keepdim=True)
    return centred / size.where(size > 0, 1.0)  # nothing is added: a tiny eps would count as a larger one
