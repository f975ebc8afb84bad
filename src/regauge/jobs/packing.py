"""Elements as files: the shape of the moves as JSON, their tensors beside it.

The file is in the format of safetensors under another suffix, so that no loader of weights takes it for weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from regauge.checkpoint.shards import DTYPES
from regauge.checkpoint.writer import Slot, write_safetensors
from regauge.errors import InputError
from regauge.solve import element, matrices, translate
from regauge.solve.element import Element
from regauge.solve.plan import Plan

HOMES = (element, translate, matrices)
SCHEMA = 1


def plan_digest(plan: Plan) -> str:
    """Tells apart plans for which the same numbers in an element mean different things."""
    parts = [
        sorted((n, list(s)) for n, s in plan.shapes.items()),
        [(s.root, s.kind, s.n, [n for _, n in s.places]) for s in plan.sources.values()],
        [(s.root, s.n, [n for _, n in s.places]) for s in plan.shuffles.values()],
        [[(list(c.shape), [(b, list(l), str(f)) for b, l, f in c.on]) for c in cs] for cs in (plan.charges.scales, plan.charges.signs)],
        [[(s.id, s.block.id, sorted(s.along)) for s in p.sources] for p in (plan.shifts, plan.levels)],
        [(u.block.id, [list(s) for s in u.sets]) for u in plan.unseen],
        *[[b.id for b in j.blocks] for j in plan.joint],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def save_element(g: Element, path: Path) -> None:
    """Write an element; `load_element` reads it back for the same gauge."""
    tensors: dict[str, Tensor] = {}
    moves = [_pack(m, tensors) for m in g.moves]
    metadata = {"schema": str(SCHEMA), "plan": plan_digest(g.plan), "moves": json.dumps(moves)}
    names = {dtype: name for name, dtype in DTYPES.items()}
    slots = [Slot(n, names[t.dtype], tuple(t.shape)) for n, t in tensors.items()]
    # the same bytes each time, unlike the library's own
    write_safetensors(path, slots, metadata, lambda n: (tensors[n],))


def load_element(path: Path, plan: Plan) -> Element:
    """Read an element of the gauge with this plan. Raises InputError where it belongs to another one."""
    try:
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
            # clones: the file need not lie in memory as matrix products want it
            tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}
        moves = json.loads(metadata["moves"])
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as an element ({error}): write it again") from None
    except Exception as error:  # safetensors raises a class of its own
        raise InputError(f"{path}: is no safetensors file ({error}): write it again") from None
    if metadata.get("plan") != plan_digest(plan):
        raise InputError(
            f"{path}: belongs to another gauge than the one inferred here: use the model, the options and the versions "
            "that regauge.json names"
        )
    return Element(plan, tuple(_unpack(m, tensors) for m in moves))


def _pack(x: Any, tensors: dict[str, Tensor]) -> Any:
    match x:
        case Tensor():
            name = f"t{len(tensors)}"
            tensors[name] = x.detach().clone().contiguous()
            return {"tensor": name}
        case None | bool() | int() | float() | str():
            return {"value": x}
        case tuple() | list():
            return {"tuple": [_pack(i, tensors) for i in x]}
        case Mapping():
            return {"dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in x.items()]}
    if dataclasses.is_dataclass(x) and getattr(_home(type(x).__name__), type(x).__name__, None) is type(x):
        fields = {f.name: _pack(getattr(x, f.name), tensors) for f in dataclasses.fields(x)}
        return {"class": type(x).__name__, "fields": fields}
    raise TypeError(f"{type(x).__name__} cannot be stored in an element file")


def _unpack(x: Any, tensors: dict[str, Tensor]) -> Any:
    match x:
        case {"tensor": name}:
            return tensors[name]
        case {"value": value}:
            return value
        case {"tuple": items}:
            return tuple(_unpack(i, tensors) for i in items)
        case {"dict": items}:
            return {_unpack(k, tensors): _unpack(v, tensors) for k, v in items}
        case {"class": name, "fields": fields}:
            made = getattr(_home(name), name, None)
            if not dataclasses.is_dataclass(made):
                raise InputError(f"the element file names {name}, which this version of regauge has not")
            return made(**{k: _unpack(v, tensors) for k, v in fields.items()})  # type: ignore[operator]
    raise InputError("the element file is damaged: write it again")


def _home(name: str) -> Any:
    return next((m for m in HOMES if hasattr(m, name)), element)


__all__ = ["load_element", "plan_digest", "save_element"]
