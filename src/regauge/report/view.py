"""A gauge as plain data: what `--json` prints and what text and HTML are made from."""

from __future__ import annotations

from typing import Any, TypedDict

from regauge.solve.fold import fold

SCHEMA = 1  # raised when a field changes its meaning or goes away; new fields do not raise it


class TouchView(TypedDict):
    parameter: str
    axis: int
    side: str


class BondView(TypedDict):
    name: str
    size: int
    group: str
    dim: int
    touches: list[TouchView]


class FamilyView(TypedDict):
    """Bonds alike but for layer numbers; `dim` is that of all of them together."""

    name: str
    count: int
    size: int
    group: str
    dim: int
    parameters: list[str]


class TermView(TypedDict):
    label: str
    count: int
    each: int
    dim: int


class ObstructionView(TypedDict):
    """`count` obstructions alike but for layer numbers; lifting all of them gives `gain` dimensions."""

    bond: str
    count: int
    text: str
    source: str
    cost: str
    gain: int


class View(TypedDict):
    schema: int
    dim: int
    bonds: list[BondView]
    families: list[FamilyView]
    terms: list[TermView]
    obstructions: list[ObstructionView]
    frozen: list[str]


def describe(gauge: Any) -> View:
    """The plain data of a gauge: JSON types only. `families` are folded over layers, `bonds` are not."""
    return View(
        schema=SCHEMA,
        dim=gauge.dim,
        bonds=[bond_view(bond) for bond in gauge.bonds],
        families=families(gauge),
        terms=[TermView(label=t.label, count=t.count, each=t.each, dim=t.dim) for t in gauge.terms],
        obstructions=obstructions(gauge),
        frozen=list(gauge.frozen),
    )


def bond_view(bond: Any) -> BondView:
    touches = [TouchView(parameter=t.parameter, axis=t.axis, side=t.side) for t in bond.touches]
    return BondView(name=bond.name, size=bond.size, group=str(bond.group), dim=bond.dim, touches=touches)


def families(gauge: Any) -> list[FamilyView]:
    folded = fold(gauge.bonds, lambda bond: bond.name, lambda bond: (str(bond.group), bond.size, bond.dim))
    return [
        FamilyView(
            name=family.name,
            count=len(family.items),
            size=family.items[0].size,
            group=str(family.items[0].group),
            dim=sum(bond.dim for bond in family.items),
            parameters=folded_names({t.parameter: None for bond in family.items for t in bond.touches}),
        )
        for family in folded
    ]


def folded_names(names: dict[str, None]) -> list[str]:
    return [family.name for family in fold(names, lambda name: name, lambda _: None)]


def obstructions(gauge: Any) -> list[ObstructionView]:
    return [
        ObstructionView(bond=o.bond, count=o.count, text=o.text, source=o.source, cost=o.cost, gain=o.lost)
        for o in gauge.obstructions
    ]
