"""Recipes: a list of steps with options, as plain data, that composes gauge choices into one element.

    steps:
      - untie
      - fold
      - rotate: {bond: stream, how: hadamard, seed: 3}
      - balance: {norm: l2}

Steps that change which tensors there are stand at the ends: `untie` first, `prune-redundant` last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from regauge.act.balance import balance
from regauge.act.canonical import canonical
from regauge.act.fold import fold
from regauge.act.rotate import rotate
from regauge.errors import InputError
from regauge.solve.element import Element
from regauge.solve.gauge import Gauge
from regauge.solve.state import State

Choice = Callable[..., Any]
BEFORE = ("untie",)
AFTER = ("prune-redundant",)


@dataclass(frozen=True)
class Step:
    """One gauge choice by name, with its options as plain data (a rotation's `how` may be the name of a matrix)."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> str | dict[str, Any]:
        return {self.name: dict(self.options)} if self.options else self.name


@dataclass(frozen=True)
class Recipe:
    """Steps in order. `tensors`: matrices and moments that options name, by those names."""

    steps: tuple[Step, ...]
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for i, s in enumerate(self.steps):
            _check(i, s)
        names = [s.name for s in self.steps]
        middle = [n for n in names if n not in (*BEFORE, *AFTER)]
        ordered = [n for n in names if n in BEFORE] + middle + [n for n in names if n in AFTER]
        if names != ordered:
            raise InputError(
                f"a recipe starts with {BEFORE[0]} and ends with {AFTER[0]}; this one has {', '.join(names)}"
            )

    @property
    def unties(self) -> bool:
        return any(s.name in BEFORE for s in self.steps)

    @property
    def prunes(self) -> bool:
        return any(s.name in AFTER for s in self.steps)

    @property
    def pruning(self) -> Mapping[str, Any] | None:
        """The options of prune-redundant; None where it is not asked for."""
        return next((dict(s.options) for s in self.steps if s.name in AFTER), None)

    @property
    def choices(self) -> tuple[Step, ...]:
        """The steps that are elements of the gauge group."""
        return tuple(s for s in self.steps if s.name not in (*BEFORE, *AFTER))

    def element(self, gauge: Gauge, state: Mapping[str, Tensor]) -> Element:
        """The choices as one element: each sees the state that those before it leave. `gauge` and `state` are those after
        untying, where the recipe unties."""
        total = gauge.identity()
        for s in self.choices:
            made = CHOICES[s.name](gauge, After(total, state), **self._options(s))
            total = (made[0] if isinstance(made, tuple) else made) @ total
        return total

    def _options(self, s: Step) -> dict[str, Any]:
        options = dict(s.options)
        for key in ("how", "moments"):
            if isinstance(options.get(key), str) and options[key] in self.tensors:
                options[key] = self.tensors[options[key]]
        return options

    def plain(self) -> dict[str, Any]:
        """As data for JSON or YAML; `Recipe.of` reads it back (tensors are named, not held)."""
        return {"steps": [s.plain() for s in self.steps]}

    @staticmethod
    def of(data: Any, tensors: Mapping[str, Tensor] | None = None) -> Recipe:
        """A recipe from plain data: {"steps": [...]}, or the list alone; a step is a name, or {name: {option: value}}.

        Raises InputError that names the step where the data are no recipe.
        """
        if isinstance(data, Mapping):
            unknown = sorted(set(data) - {"steps"})
            if unknown or "steps" not in data:
                raise InputError(f"a recipe has one key, steps; this one has {', '.join(map(str, data)) or 'none'}")
            data = data["steps"]
        if isinstance(data, str):
            data = [data]
        if not isinstance(data, list | tuple):
            raise InputError(f"a recipe is a list of steps, not {type(data).__name__}")
        return Recipe(tuple(_step(i, d) for i, d in enumerate(data)), tensors or {})

    @staticmethod
    def read(path: str | Path, tensors: Mapping[str, Tensor] | None = None) -> Recipe:
        """A recipe from a YAML (or JSON) file."""
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            where = " ".join(str(error).split())
            raise InputError(f"{path}: is no YAML: {where}") from None
        try:
            return Recipe.of(data, tensors)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


class After(Mapping[str, Tensor]):
    """The state that an element leaves; each tensor is computed when it is asked for."""

    def __init__(self, element: Element, state: Mapping[str, Tensor]) -> None:
        self.before = state
        self.stages = element.moved(State(element.plan, state))
        self.canonical = {alias: n for n in self.stages.params for alias in (n, *element.plan.aliases.get(n, ()))}

    def __getitem__(self, name: str) -> Tensor:
        """In float64 where the element changes it: no rounding between steps."""
        old = self.before[name]
        new = self.stages.result(self.canonical[name]) if name in self.canonical else None
        return old if new is None else new.reshape(old.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.before)

    def __len__(self) -> int:
        return len(self.before)

    def __contains__(self, name: object) -> bool:
        return name in self.before


def _step(i: int, d: Any) -> Step:
    if isinstance(d, str):
        return Step(d)
    if isinstance(d, Mapping) and len(d) == 1:
        ((name, options),) = d.items()
        if options is None:
            return Step(str(name))
        if isinstance(options, Mapping):
            return Step(str(name), {str(k): v for k, v in options.items()})
    raise InputError(f"step {i + 1} of the recipe is {d!r}: expected a name, or one name with its options")


def _check(i: int, s: Step) -> None:
    allowed = STRUCTURAL.get(s.name)
    if allowed is None:
        choice = CHOICES.get(s.name)
        if choice is None:
            raise InputError(
                f"step {i + 1} of the recipe is {s.name!r}; known steps: {', '.join([*STRUCTURAL, *CHOICES])}"
            )
        parameters = signature(choice).parameters
        allowed = tuple(parameters)[2:]
        missing = [n for n in allowed if parameters[n].default is parameters[n].empty and n not in s.options]
        if missing:
            raise InputError(f"step {i + 1} of the recipe, {s.name}: needs {', '.join(missing)}")
    unknown = [k for k in s.options if k not in allowed]
    if unknown:
        known = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
        raise InputError(f"step {i + 1} of the recipe, {s.name}: unknown option {', '.join(unknown)}; {known}")


def random(gauge: Gauge, state: Mapping[str, Tensor], seed: int = 0) -> Element:
    """A generic element of the whole group."""
    return gauge.sample(int(seed))


STRUCTURAL: dict[str, tuple[str, ...]] = {"untie": (), "prune-redundant": ("tolerance",)}
CHOICES: dict[str, Choice] = {
    "fold": fold,
    "rotate": rotate,
    "balance": balance,
    "canonical": canonical,
    "random": random,
}
