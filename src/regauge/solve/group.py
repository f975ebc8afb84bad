"""The notation of groups: what a bond's group is called, and back."""

from __future__ import annotations

import re
from dataclasses import dataclass

from regauge.errors import InputError

ATOM = re.compile(r"^(GL|SL|O|SO|Aff)\((\d+)\)$|^(R\+|R\*|C\*|Z2|1)$|^S(\d+)$")


@dataclass(frozen=True)
class Group:
    """A base group, then for each index set outwards: a copy for every index ("^n"), and whether these are permuted
    ("wr Sn"); index sets that are permuted without copies are factors of their own ("x Sn").

    Printed like `GL(64) wr S12`, `C*^32 wr S3`, `R+ wr S1536`, `O(576)`, `S4`; `Group.parse` reads that.
    """

    base: str
    copies: tuple[tuple[int, bool], ...] = ()
    beside: tuple[int, ...] = ()

    def __str__(self) -> str:
        text = self.base
        for n, permuted in self.copies:
            if text == "1":
                text = f"S{n}" if permuted else "1"
            else:
                text = f"{text} wr S{n}" if permuted else f"{text}^{n}"
        factors = [text, *(f"S{n}" for n in self.beside)]
        factors = [f for f in factors if f != "1"] or ["1"]
        return " x ".join(factors)

    @staticmethod
    def parse(text: str) -> Group:
        """The group that prints as `text`. Raises InputError where it is none."""
        head, *beside = text.split(" x ")
        tokens = re.split(r"( wr S\d+|\^\d+)", head)
        base, rest = tokens[0].strip(), [t for t in tokens[1:] if t]
        if not ATOM.match(base) or any(not re.fullmatch(r"S\d+", b) for b in beside):
            raise InputError(f"{text!r} is not a group: expected for example GL(64) wr S12, O(576) or R+ wr S1536")
        copies = tuple((int(re.sub(r"\D", "", t)), "wr" in t) for t in rest)
        if base.startswith("S") and base[1:].isdigit():
            copies, base = ((int(base[1:]), True), *copies), "1"
        return Group(base, copies, tuple(int(b[1:]) for b in beside))
