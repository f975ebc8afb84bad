"""What a job on a directory prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regauge.report.text import effort, notes, verdict


def applied(result: dict[str, Any]) -> RenderableType:
    """What `regauge apply` and `regauge undo` print: what was written where, the proof, what to know."""
    record = result["record"]
    if record is None:
        return Text(
            f"{result['target']}: the files of rank {result['rank']} are written; other ranks are still at work"
        )
    files = record["output"]["files"]
    return Group(
        Text(result["target"], style="bold", overflow="fold"),
        Text(f"{result['bytes']:,} bytes in {len(files)} file(s), computed in {record['compute']}"),
        *proof(record["verify"]),
        *notes(record["notes"]),
        effort(result),
    )


def proof(held: dict[str, Any] | None) -> Iterator[RenderableType]:
    if held is None:
        yield Text("\nnot verified: --verify none", style="yellow")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("the function is unchanged", "measured", "allowed", ""):
        table.add_column(name, overflow="fold")
    if (exact := held["exact"]) is not None:
        ok = exact["error"] <= exact["limit"]
        table.add_row(
            "before rounding, in float64", f"error {exact['error']:.1e}", f"{exact['limit']:.1e}", verdict(ok)
        )
    stored = held["stored"]
    measured = f"error {stored['error']:.1e}, noise {stored['floor']:.1e}"
    table.add_row("as stored", measured, f"{stored['limit']:.1e}", verdict(stored["error"] <= stored["limit"]))
    yield table
