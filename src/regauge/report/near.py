"""Where given weights sit: at or near which larger groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

from rich.console import RenderableType
from rich.text import Text

from regauge.act import Stratum

SHOWN = 8


class StratumView(TypedDict):
    """distance: relative; 0 on the stratum. near: within what was asked for. count: units (or pairs) that near; gain:
    dimensions that the group has more on it. stays: a constant that nothing takes up."""

    kind: str
    bond: str
    distance: float
    near: bool
    units: list[int]
    count: int
    gain: int
    stays: bool
    text: str


def near_strata(found: Iterable[Stratum], near: float) -> list[StratumView]:
    """As plain data, the nearest first."""
    return [
        StratumView(
            kind=s.kind,
            bond=s.bond,
            distance=s.distance,
            near=s.distance <= near,
            units=list(s.units),
            count=s.count,
            gain=s.gain,
            stays=s.stays,
            text=str(s),
        )
        for s in found
    ]


def at_weights(result: dict[str, Any]) -> Iterator[RenderableType]:
    """What is near; and the nearest of all, so that "nothing is near" has a number."""
    if "strata" not in result:
        return
    found: list[StratumView] = result["strata"]
    close = [s for s in found if s["near"]]
    yield Text()
    yield Text("at these weights", style="bold")
    if not found:
        yield Text("  no hidden units and no products of maps: nothing can coincide, sleep or lose rank")
    elif not close:
        yield Text(f"  generic: the nearest of {len(found)} strata is far: {found[0]['text']}", overflow="fold")
    for s in close[:SHOWN]:
        gain = f"; + {s['gain']:,} dimensions there" if s["gain"] else ""
        yield Text(f"  - {s['text']}{gain}", overflow="fold")
    if len(close) > SHOWN:
        yield Text(f"  and {len(close) - SHOWN} more (--json lists all)")
    if any(s["kind"] != "rank" and not s["stays"] and s["distance"] < 1e-6 for s in close):
        yield Text(
            "  units that are redundant exactly can go, the function stays: regauge apply MODEL OUT --prune-redundant",
            overflow="fold",
        )
