"""What goes of one bond, as a value that a job writes down and reads back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Removal:
    """On one bond of `size` units: those without effect, those that are constant, and for each unit that is merged the one
    that stands for it.

    root: the index set in the plan. factors: block of a reader -> for each merged unit, by how much its column is multiplied
    before it is added to the other's. shifts: parameter -> for each constant unit, what is added to it (flat, in its chart)."""

    bond: str
    root: int
    size: int
    dead: tuple[int, ...]
    merged: tuple[tuple[int, int], ...]
    factors: Mapping[int, tuple[float, ...]] = field(default_factory=dict, repr=False)
    constant: tuple[int, ...] = ()
    shifts: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict, repr=False)

    @property
    def count(self) -> int:
        return len(self.gone)

    @property
    def gone(self) -> list[int]:
        return [*self.dead, *self.constant, *(k for k, _ in self.merged)]

    def first(self, n: int) -> Removal:
        """The same with n units at most: the dead go first, then the constant."""
        c = max(0, n - len(self.dead))
        m = max(0, c - len(self.constant))
        return replace(
            self,
            dead=self.dead[:n],
            constant=self.constant[:c],
            merged=self.merged[:m],
            factors={b: f[:m] for b, f in self.factors.items()},
            shifts={p: s[:c] for p, s in self.shifts.items()},
        )

    def __str__(self) -> str:
        kinds = {"dead": self.dead, "constant": self.constant, "merged": self.merged}
        held = ", ".join(f"{len(which)} {kind}" for kind, which in kinds.items() if which)
        return f"{self.bond}: {self.count} units removed ({held})"

    def plain(self) -> dict[str, Any]:
        """As data for JSON; `Removal.of` reads it back."""
        return {**vars(self), "factors": {str(b): list(f) for b, f in self.factors.items()}}

    @staticmethod
    def of(data: Mapping[str, Any]) -> Removal:
        factors = {int(b): tuple(f) for b, f in data["factors"].items()}
        merged = tuple((k, j) for k, j in data["merged"])
        shifts = {p: tuple(map(tuple, rows)) for p, rows in data["shifts"].items()}
        dead, constant = tuple(data["dead"]), tuple(data["constant"])
        return Removal(data["bond"], data["root"], data["size"], dead, merged, factors, constant, shifts)
