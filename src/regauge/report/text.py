"""A result for the terminal. Works without colour, in a narrow window and in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from regauge.report.near import at_weights
from regauge.report.view import FamilyView, ObstructionView, TermView

MANY = 12  # obstructions beyond this number are counted, not listed


def inspection(result: dict[str, Any]) -> RenderableType:
    """What `regauge inspect` prints: model, bonds, what the dimension is made of, what breaks the rest, what to do
    next."""
    gauge = result["gauge"]
    return Group(
        heading(result),
        bonds(gauge["families"]),
        dimension(gauge["dim"], gauge["terms"], result["model"]["parameters"]),
        *obstructions(gauge["obstructions"]),
        *frozen(gauge["frozen"]),
        *at_weights(result),
        *notes(result.get("notes", [])),
        effort(result),
        *next_steps(result),
    )


def verification(result: dict[str, Any]) -> RenderableType:
    """What `regauge verify` prints: each check with its numbers, then the verdict."""
    checks = result["checks"]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("check", "measured", "allowed", ""):
        table.add_column(name, overflow="fold")
    for check in checks["sound"]:
        measured = f"error {check['error']:.1e}" + ("" if check["floor"] is None else f", noise {check['floor']:.1e}")
        table.add_row(f"sound in {check['dtype']}", measured, f"{check['limit']:.1e}", verdict(check["ok"]))
    if (control := checks["control"])["moved"]:
        moved = f"error {control['error']:.1e}"
        table.add_row("control: a random move of that size", moved, "large", verdict(control["ok"]))
    if (tight := checks["tight"]) is None:
        table.add_row("tight", "not checked", "", Text("--", style="yellow"))
    else:
        measured = f"dimension {tight['dim']:,}, nullity {tight['nullity']:,}"
        table.add_row(f"tight, on {tight['parameters']:,} parameters", measured, "equal", verdict(tight["ok"]))
    details = [Text(line) for line in result.get("details", [])]
    return Group(
        heading(result),
        Text(),
        Text(f"dimension {result['gauge']['dim']:,}", style="bold"),
        table,
        *details,
        *frozen(result["gauge"]["frozen"]),
        *notes(result.get("notes", [])),
        effort(result),
        Text(),
        conclusion(result),
    )


def heading(result: dict[str, Any]) -> RenderableType:
    model = result["model"]
    line = Text(model["spec"], style="bold", overflow="fold")
    return Group(line, Text(f"{model['class']}, {model['parameters']:,} parameters, observed: {result['observe']}"))


def bonds(families: list[FamilyView]) -> RenderableType:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("bond", overflow="fold", ratio=None)
    table.add_column("group", style="cyan", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("dim", justify="right", no_wrap=True)
    fixed = [family for family in families if family["group"] == "1"]
    for family in families:
        if family["group"] != "1":
            times = f"x{family['count']}" if family["count"] > 1 else ""
            table.add_row(family["name"], family["group"], f"{family['size']:,}", times, f"{family['dim']:,}")
    if not fixed:
        return table
    count = sum(family["count"] for family in fixed)
    return Group(table, Text(f"and {count:,} more with the trivial group", style="dim"))


def dimension(dim: int, terms: list[TermView], parameters: int) -> RenderableType:
    share = f" ({dim / parameters:.2%} of the parameters)" if parameters else ""
    title = Text(f"\ndimension {dim:,}{share}", style="bold")
    if not terms:
        return title
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for i, term in enumerate(terms):
        product = f"{term['count']:,} x {term['each']:,}" if term["count"] > 1 else ""
        table.add_row(f"{'=+'[i > 0]} {term['dim']:,}", term["label"], Text(product, style="dim"))
    return Group(title, Padding(table, (0, 0, 0, 2), expand=False))


def obstructions(found: list[ObstructionView]) -> Iterator[RenderableType]:
    if not found:
        return
    yield Text("\nwhat breaks the rest", style="bold")
    for item in found[:MANY]:
        times = f" (x{item['count']})" if item["count"] > 1 else ""
        line = Text(f"- {item['bond']}{times}: {item['text']}")
        if item["source"]:
            line.append(f"  {item['source']}", style="dim")
        if item["cost"]:
            line.append(f"\n  {item['cost']}", style="green")
        yield Padding(line, (0, 0, 0, 2), expand=False)
    if len(found) > MANY:
        yield Padding(
            Text(f"... and {len(found) - MANY} more: --json lists them", style="dim"), (0, 0, 0, 2), expand=False
        )


def frozen(operators: list[str]) -> Iterator[RenderableType]:
    if operators:
        listed = ", ".join(operators)
        yield Text(f"\nfrozen for want of a rule, so the answer may be too small: {listed}", style="yellow")


def notes(sentences: list[str]) -> Iterator[RenderableType]:
    for sentence in sentences:
        yield Text(f"note: {sentence}", style="yellow")


def effort(result: dict[str, Any]) -> RenderableType:
    parts = [f"{name} {seconds:.1f} s" for name, seconds in result["seconds"].items()]
    parts.append(f"peak memory {result['peak_memory_bytes'] / 2**30:.2f} GiB")
    return Text("\n" + ", ".join(parts), style="dim")


def next_steps(result: dict[str, Any]) -> Iterator[RenderableType]:
    spec = result["model"]["spec"]
    yield Text("\nnext", style="bold")
    yield Padding(Text(f"regauge verify {spec}", style="green", overflow="fold"), (0, 0, 0, 2), expand=False)
    yield Padding(Text("proves it on the weights, from both sides", style="dim"), (0, 0, 0, 4), expand=False)
    yield Padding(Text(f"regauge inspect {spec} --json", style="green", overflow="fold"), (0, 0, 0, 2), expand=False)
    yield Padding(Text("lists every bond, and the parameters that it touches", style="dim"), (0, 0, 0, 4), expand=False)


def verdict(ok: bool) -> Text:
    return Text("ok", style="bold green") if ok else Text("FAILED", style="bold red")


def conclusion(result: dict[str, Any]) -> Text:
    if not result["proved"]:
        return Text("not proved: a check failed", style="bold red")
    if result["checks"]["tight"] is None:
        return Text("sound, and not known to be tight", style="bold yellow")
    return Text("proved: sound and tight", style="bold green")
