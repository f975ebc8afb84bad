"""A gauge as HTML: a fragment for notebooks, and one self-contained page without scripts or outside resources."""

from __future__ import annotations

from html import escape
from typing import Any

from regauge.report.view import FamilyView, ObstructionView, TermView, View, describe

STYLE = """
.regauge { font: 14px/1.45 system-ui, sans-serif; color: #1c2330; background: #fff; padding: 1em; max-width: 70em }
.regauge h1 { font-size: 1.3em; margin: 0 0 .2em } .regauge h2 { font-size: 1.05em; margin: 1.4em 0 .3em }
.regauge table { border-collapse: collapse } .regauge td, .regauge th { padding: .25em 1em .25em 0; text-align: left;
 border-bottom: 1px solid #e3e6ec; vertical-align: top }
.regauge .n { text-align: right; font-variant-numeric: tabular-nums }
.regauge code { font: 13px ui-monospace, monospace } .regauge .dim { color: #687083 } .regauge .group { color: #0a6c8f }
.regauge .cost { color: #1d7a3c } .regauge summary { cursor: pointer }
@media (prefers-color-scheme: dark) { .regauge { color: #e6e9ef; background: #171b22 } .regauge td, .regauge th
 { border-color: #333a47 } .regauge .group { color: #6cc7e6 } .regauge .cost { color: #79d296 } }
"""


def fragment(gauge: Any) -> str:
    """A gauge as an HTML fragment; what `_repr_html_` returns."""
    return f"<style>{STYLE}</style>{body('Gauge group', describe(gauge))}"


def page(title: str, view: View) -> str:
    """One self-contained page."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return (
        f"<!doctype html><html lang='en'><head>{head}<style>body {{ margin: 0 }}{STYLE}</style></head>"
        f"<body>{body(title, view)}</body></html>\n"
    )


def body(title: str, view: View) -> str:
    parts = [f"<h1>{escape(title)}</h1><p>dimension <b>{view['dim']:,}</b></p>", families(view["families"])]
    if view["terms"]:
        parts.append("<h2>What the dimension is made of</h2>" + terms(view["terms"]))
    if view["obstructions"]:
        parts.append("<h2>What breaks the rest</h2>" + obstructions(view["obstructions"]))
    if view["frozen"]:
        listed = ", ".join(f"<code>{escape(name)}</code>" for name in view["frozen"])
        parts.append(f"<p>Frozen for want of a rule, so the answer may be too small: {listed}</p>")
    return f"<div class='regauge'>{''.join(parts)}</div>"


def table(header: str, rows: list[str]) -> str:
    return f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def families(found: list[FamilyView]) -> str:
    header = "<th>bond</th><th>group</th><th class='n'>size</th><th class='n'>times</th><th class='n'>dimension</th>"
    return table(header, [family_row(family) for family in found])


def family_row(family: FamilyView) -> str:
    parameters = "".join(f"<div class='dim'><code>{escape(name)}</code></div>" for name in family["parameters"])
    name = f"<details><summary><code>{escape(family['name'])}</code></summary>{parameters}</details>"
    return (
        f"<tr><td>{name}</td><td class='group'><code>{escape(family['group'])}</code></td>"
        f"<td class='n'>{family['size']:,}</td><td class='n'>{family['count']:,}</td>"
        f"<td class='n'>{family['dim']:,}</td></tr>"
    )


def terms(found: list[TermView]) -> str:
    header = "<th>part</th><th class='n'>times</th><th class='n'>each</th><th class='n'>dimension</th>"
    return table(header, [term_row(term) for term in found])


def term_row(term: TermView) -> str:
    numbers = "".join(f"<td class='n'>{n:,}</td>" for n in (term["count"], term["each"], term["dim"]))
    return f"<tr><td>{escape(term['label'])}</td>{numbers}</tr>"


def obstructions(found: list[ObstructionView]) -> str:
    header = "<th>bond</th><th>why</th><th>where</th><th>what lifting it costs</th>"
    return table(header, [obstruction_row(obstruction) for obstruction in found])


def obstruction_row(found: ObstructionView) -> str:
    times = f" x{found['count']}" if found["count"] > 1 else ""
    return (
        f"<tr><td><code>{escape(found['bond'])}</code>{times}</td><td>{escape(found['text'])}</td>"
        f"<td class='dim'><code>{escape(found['source'])}</code></td><td class='cost'>{escape(found['cost'])}</td></tr>"
    )
