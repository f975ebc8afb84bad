"""Bonds that repeat across numbered layers, folded into one line: `layers.0.mlp`, `layers.1.mlp` ->
`layers.{0..1}.mlp`."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
NUMBER = re.compile(r"(?<![\w:-])\d+(?![\w-])")  # a component of a dotted path; not the 1 of fc1, nor a line


@dataclass(frozen=True)
class Family(Generic[Item]):
    """Items alike but for the numbers in their names."""

    name: str
    items: tuple[Item, ...]


def fold(items: Iterable[Item], name: Callable[[Item], str], alike: Callable[[Item], Hashable]) -> list[Family[Item]]:
    """Group items whose names differ only in numbers and whose `alike` keys are equal, in order of first appearance.

    A group whose numbers do not form a full grid is cut along its first number, so that a folded name never claims a
    name that is not there."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault((NUMBER.sub("#", name(item)), alike(item)), []).append(item)
    return [family for group in groups.values() for family in as_families(group, name)]


def as_families(group: list[Item], name: Callable[[Item], str]) -> list[Family[Item]]:
    numbers = [tuple(int(n) for n in NUMBER.findall(name(item))) for item in group]
    columns = [sorted(set(column)) for column in zip(*numbers, strict=True)]
    grid = 1
    for column in columns:
        grid *= len(column)
    if len(set(numbers)) == len(group) == grid:
        texts = iter([ranges(column) for column in columns])
        return [Family(NUMBER.sub(lambda _: next(texts), name(group[0])), tuple(group))]
    varying = next((i for i, column in enumerate(columns) if len(column) > 1), None)
    if varying is None:  # one name several times
        return [Family(name(group[0]), tuple(group))]
    parts: dict[int, list[Item]] = {}
    for item, number in zip(group, numbers, strict=True):
        parts.setdefault(number[varying], []).append(item)
    return [family for part in parts.values() for family in as_families(part, name)]


def ranges(numbers: list[int]) -> str:
    """Sorted numbers as text: 3 -> `3`, 0 1 2 5 -> `{0..2,5}`, 0 2 4 6 -> `{0..6 by 2}`."""
    if len(numbers) == 1:
        return str(numbers[0])
    step = numbers[1] - numbers[0]
    if len(numbers) > 2 and step > 1 and numbers == list(range(numbers[0], numbers[-1] + 1, step)):
        return f"{{{numbers[0]}..{numbers[-1]} by {step}}}"
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return "{" + ",".join(f"{r[0]}..{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs) + "}"


def alike(text: str) -> str:
    """Equal for texts that differ in layer numbers only."""
    return NUMBER.sub("#", text)


def folded_text(texts: list[str]) -> str:
    """The one text that stands for all: itself if they agree, else with the numbers as ranges."""
    distinct = list(dict.fromkeys(texts))
    folded = fold(distinct, lambda text: text, lambda _: None)
    return folded[0].name if len(folded) == 1 else distinct[0]
