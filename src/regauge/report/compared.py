"""What `regauge diff`, `regauge fingerprint` and `regauge match` print."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regauge.report.text import effort, notes

WORDS = {
    "identical": "identical: the same numbers",
    "gauge-equal": "gauge-equal: the same function, in another gauge",
    "derived": "derived: near each other, but not by the gauge alone (trained further, pruned, quantised or merged)",
    "unrelated": "unrelated: no nearer than chance",
}
STYLES = {"identical": "green", "gauge-equal": "green", "derived": "yellow", "unrelated": "red"}
MANY = 16  # bonds beyond this number are counted, not listed


def compared(result: dict[str, Any]) -> RenderableType:
    """The verdict, how far B is from the image of A, and where."""
    parts: list[RenderableType] = [
        Text(f"{result['a']}\n{result['b']}", overflow="fold"),
        Text(),
        Text(WORDS[result["verdict"]], style=f"bold {STYLES[result['verdict']]}"),
    ]
    if result["reason"]:
        parts.append(Text(result["reason"]))
    if result["similarity"] is not None:
        by_chance = "" if result["chance"] is None else f" (by chance {result['chance']:.2f})"
        cosine = f"mean cosine {result['similarity']:.4f}{by_chance}"
        if result["residual"] is not None:
            away = f"|g.A - B| / |B| = {result['residual']:.1e}, rounding alone leaves {result['floor']:.1e}"
            cosine = f"{away}; {cosine}"
        parts.append(Text(cosine))
    if result["verdict"] == "derived" and result["answers"] is not None:
        parts.append(
            Text(f"no element brings them near, but they answer as one: similarity of sketches {result['answers']:.2f}")
        )
    if result["element"]:
        parts.append(Text(f"the transformation from A to B: {result['element']}"))
    if result["undetermined"]:
        parts.append(Text(f"nothing could align: {', '.join(result['undetermined'])}", style="yellow"))
    if result["verdict"] == "derived" and result["bonds"]:
        parts.append(bonds(result["bonds"]))
    return Group(*parts, *notes(result["notes"]), effort(result))


def bonds(found: list[dict[str, Any]]) -> RenderableType:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("bond", overflow="fold")
    table.add_column("group")
    for name in ("delta", "rank", "of"):
        table.add_column(name, justify="right")
    for b in sorted(found, key=lambda b: -b["delta"])[:MANY]:
        table.add_row(b["name"], b["group"], f"{b['delta']:.1e}", str(b["rank"]), str(b["size"]))
    rest = len(found) - MANY
    return Group(table, Text(f"and {rest} bonds with smaller differences")) if rest > 0 else table


def sketched(result: dict[str, Any]) -> RenderableType:
    """Where the sketch is, and what it is of."""
    return Group(
        Text(result["spec"], style="bold", overflow="fold"),
        Text(f"{result['class']}: {result['file']}, {result['bytes']:,} bytes"),
        effort(result),
    )


def matched(result: dict[str, Any]) -> RenderableType:
    """Pairs of sketches, the most similar first."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("sketch", "sketch "):
        table.add_column(name, overflow="fold")
    table.add_column("similarity", justify="right")
    table.add_column("")
    for p in result["pairs"]:
        known = p["verdict"] != "not comparable"
        table.add_row(p["a"], p["b"], f"{p['similarity']:.4f}" if known else "--", p["verdict"])
    return Group(table, Text("near: one function, or trained on for a little; `regauge diff` tells which"))
