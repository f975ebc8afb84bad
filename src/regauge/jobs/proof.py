"""That the function has not changed, measured without holding the model: the core graph run with one parameter at a time.

Two bounds. *Exact*: the transformed weights before they are rounded, in double precision, against 1e-9: an error that does
not shrink with precision is the signature of a non-symmetry. *Stored*: the weights as they stand in the files, against a
noise floor that is measured on the same model: what rounding the weights that came in once more does to the function.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regauge.errors import CheckError
from regauge.graph.ir import Free, Graph, Param, Value, evaluate
from regauge.solve.state import State

MARGIN = 10.0  # the error in the stored dtype may be this many times the floor
EXACT = 1e-9

Read = Callable[[str], Tensor]  # canonical name -> the parameter in its chart, wide
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Function:
    """A core graph with the state that it reads; `read` where that is not all that there is to reading it."""

    graph: Graph
    state: State
    read: Read | None = None

    def outputs(self) -> list[Tensor]:
        return run(self.graph, self.read or self.state.tensor, self.state.dtype)


@dataclass(frozen=True)
class Proof:
    """Relative errors max |f(after) - f(before)| / max |f(before)|, the largest over outputs. `exact` is None where only
    the stored weights were compared. strict: False where a tolerance was asked for, so that before rounding, too, the error
    may be what the noise floor allows."""

    mode: str
    exact: float | None
    stored: float
    floor: float
    strict: bool = True

    @property
    def exact_limit(self) -> float:
        return EXACT if self.strict else MARGIN * self.floor

    @property
    def ok(self) -> bool:
        return (self.exact is None or self.exact <= self.exact_limit) and self.stored <= MARGIN * self.floor

    def as_data(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "exact": None if self.exact is None else {"error": self.exact, "limit": self.exact_limit},
            "stored": {"error": self.stored, "floor": self.floor, "limit": MARGIN * self.floor},
            "ok": self.ok,
        }

    def raise_if_failed(self) -> None:
        """Raises CheckError with the numbers."""
        if self.ok:
            return
        exact = (
            ""
            if self.exact is None
            else f"{self.exact:.1e} before rounding (at most {self.exact_limit:.0e} is allowed) and "
        )
        raise CheckError(
            f"the function changed: by {exact}{self.stored:.1e} as stored (noise floor {self.floor:.1e}, at most "
            f"{MARGIN:.0f} times that is allowed): nothing was written"
        )


def prove(
    before: Function, moved: Function, after: Function, mode: str, tell: Tell | None = None, *, strict: bool = True
) -> Proof:
    """Compare the function before, after in wide numbers, and as stored. mode: "full" (double precision, both bounds) or
    "sample" (single precision, the stored weights only). strict: see `Proof`."""
    say = tell or (lambda _: None)
    say("the function before")
    base = before.outputs()
    exact = None
    if mode == "full":
        say("the function after, before rounding")
        exact = distance(moved.outputs(), base)
    say("the function as stored")
    stored = distance(after.outputs(), base)
    say("the noise floor")
    state = before.state
    rounded = State(state.plan, Rerounded(state.source), state.dtype)
    floor = max(distance(Function(before.graph, rounded).outputs(), base), torch.finfo(state.dtype).eps)
    return Proof(mode, exact, stored, floor, strict)


def run(graph: Graph, read: Read, dtype: torch.dtype) -> list[Tensor]:
    """The outputs of a core graph. A value lives until its last consumer is done; one that is made of parameters alone is
    computed where it is used."""
    uses: dict[int, int] = {}
    for v in graph.values:
        if _live(v):
            for a in _inputs(v):
                uses[a.id] = uses.get(a.id, 0) + 1
    for v in graph.outputs:
        uses[v.id] = uses.get(v.id, 0) + 1
    values: dict[int, Tensor] = {}
    for v in graph.values:
        if not _live(v) or v.id not in uses:
            continue
        made: dict[int, Tensor] = {}
        values[v.id] = _value(v, values, made, read, dtype)
        del made
        for a in _inputs(v):
            uses[a.id] -= 1
            if not uses[a.id]:
                del values[a.id]
    return [values[v.id] if v.id in values else _value(v, values, {}, read, dtype) for v in graph.outputs]


def _live(v: Value) -> bool:
    return v.data and not isinstance(v.op, Free)


def _inputs(v: Value) -> list[Value]:
    """The values with data that v is computed from, through values that are made of parameters and constants."""
    return [a for a in dict.fromkeys(v.args) if _live(a)]


def _value(v: Value, values: Mapping[int, Tensor], made: dict[int, Tensor], read: Read, dtype: torch.dtype) -> Tensor:
    if v.id in values:
        return values[v.id]
    if v.id not in made:
        match v.op:
            case Param(name):
                made[v.id] = read(name)
            case Free():
                t = v.op.thunk()
                made[v.id] = t.to(dtype) if t.is_floating_point() else t
            case op:
                made[v.id] = evaluate(op, [_value(a, values, made, read, dtype) for a in v.args], v.shape)
    return made[v.id]


def distance(found: list[Tensor], base: list[Tensor]) -> float:
    """The largest relative error; infinite where numbers that are not finite come or go."""
    worst = 0.0
    for f, b in zip(found, base, strict=True):
        finite = torch.isfinite(b)
        if not bool((torch.isfinite(f) == finite).all()):
            return float("inf")
        if bool(finite.any()):
            scale = max(float(b[finite].abs().max()), 1e-300)
            worst = max(worst, float((f - b)[finite].abs().max()) / scale)
    return worst


class Rerounded(Mapping[str, Tensor]):
    """A state dict in which every twelfth number is moved by one unit in its last place: what storing it anew would do.

    A product that is stored anew errs by at most half a unit, uniformly: its variance is a twelfth of a unit squared."""

    def __init__(self, source: Mapping[str, Tensor]) -> None:
        self.source = source

    def __getitem__(self, name: str) -> Tensor:
        t = self.source[name]
        if not t.is_floating_point():
            return t
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        draw = torch.rand(t.shape, generator=generator)
        step = (draw < 1 / 24).to(torch.int8) - (draw > 23 / 24).to(torch.int8)
        del draw
        wide = torch.float64 if t.dtype in (torch.float32, torch.float64) else torch.float32
        # 3/4 eps relative is between 3/4 and 3/2 units of the last place, and rounds to one
        return (t.to(wide) * (1 + 0.75 * torch.finfo(t.dtype).eps * step)).to(t.dtype)

    def __contains__(self, name: object) -> bool:
        return name in self.source

    def __iter__(self) -> Any:
        return iter(self.source)

    def __len__(self) -> int:
        return len(self.source)
