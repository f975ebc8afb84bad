"""What opening a model gives: three ways to build it, each on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Sample:
    """A module in eval mode with inputs that it runs on: `model(*args, **kwargs)`.

    `notes` holds what a user should know about how it was built, one sentence each."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A model that was found but not yet built.

    `skeleton()` has every shape, tie and buffer of the model, but parameters may lie on the meta device.
    `loaded()` has the weights, checked: complete, of the right shapes, finite.
    `small()` is a copy of the same make with a few thousand random parameters, or None where no such copy can be
    made."""

    spec: str
    kind: Literal["pretrained", "factory", "program"]
    skeleton: Callable[[], Sample]
    loaded: Callable[[], Sample]
    small: Callable[[], Sample] | None = None
