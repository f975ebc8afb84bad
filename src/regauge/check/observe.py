"""What must not change: the observed tensors of a model's output, as one flat list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regauge.errors import InputError

Observe = str | Callable[[Any], Any] | None


def observed(output: Any, observe: Observe = None) -> dict[str, Tensor]:
    """The observed floating tensors of `output`, named by their path in it.

    `observe` is None (all of them), "logits", "probabilities" (softmax of the logits over the last axis), or a callable
    on the output. Containers may be tuples, lists, mappings and dataclasses, nested.

    Raises InputError if nothing is observed, or if the output holds an object that is none of these.
    """
    if callable(observe):
        output = observe(output)
    elif observe in ("logits", "probabilities"):
        logits = _logits(output)
        output = logits.softmax(-1) if observe == "probabilities" else logits
    elif observe is not None:
        raise InputError(f"observe={observe!r} is not known: pass None, 'logits', 'probabilities' or a callable")
    found = {path or "output": t for path, t in _leaves(output, "") if t.is_floating_point() or t.is_complex()}
    if not found:
        raise InputError("the model's output holds no floating tensor: pass observe=callable that returns one")
    return found


def _logits(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if logits is None and isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        logits = output[0]
    if not isinstance(logits, Tensor):
        raise InputError(f"the output ({type(output).__name__}) has no logits: pass observe=callable that returns them")
    return logits


def _leaves(value: Any, path: str) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(path, value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return []
    if isinstance(value, Mapping):
        items = [(f"{path}.{k}" if path else str(k), v) for k, v in value.items()]
    elif isinstance(value, (tuple, list)):
        items = [(f"{path}[{i}]", v) for i, v in enumerate(value)]
    elif is_dataclass(value) and not isinstance(value, type):
        items = [(f"{path}.{f.name}" if path else f.name, getattr(value, f.name)) for f in fields(value)]
    else:
        where = f" at {path}" if path else ""
        raise InputError(
            f"the output holds a {type(value).__name__}{where}, which is no tensor or container: "
            "turn it off in the model (caches: use_cache=False) or pass observe=callable that returns tensors"
        )
    return [leaf for name, item in items for leaf in _leaves(item, name)]


def run(model: nn.Module, args: tuple, kwargs: dict | None, observe: Observe) -> dict[str, Tensor]:
    """The observed outputs of one call. Random layers see the same seed each time; the global state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return observed(model(*args, **(kwargs or {})), observe)
