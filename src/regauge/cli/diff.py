"""`regauge diff`: is it the same model? The exit code says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from regauge.cli.progress import Watch, peak_memory_bytes

SCHEMA = 1


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A model: as for inspect.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Where the transformation from A to B is written, if there is one.  [default: A-to-B.safetensors]",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let the transformation replace a file that stands.")] = False,
    unknown: Annotated[
        str, typer.Option("--unknown", help="raise, or freeze what touches an operator without a rule.")
    ] = "raise",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Is B the same model as A? Exit codes: 0 identical, 3 gauge-equal, 4 derived, 5 unrelated; 2 unreadable."""
    from regauge.align import GAUGE_EQUAL
    from regauge.cli.app import emit
    from regauge.jobs.diff import diff as run
    from regauge.jobs.diff import refuse_to_replace
    from regauge.report.compared import compared

    target = out or Path(f"{_short(a)}-to-{_short(b)}.safetensors")
    refuse_to_replace(target, force)
    with Watch(as_json) as watch:
        found = run(a, b, unknown=unknown, tell=watch.stage)
        written = found.alignment is not None and (found.verdict == GAUGE_EQUAL or out is not None)
        if written:
            found.save(target)
    emit(view(a, b, found, str(target) if written else None, watch.seconds), as_json, compared)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _short(spec: str) -> str:
    return Path(spec.replace(":", ".")).expanduser().resolve().name


def view(a: str, b: str, found: Any, target: str | None, seconds: float) -> dict[str, Any]:
    """The answer as plain data."""
    g = found.alignment
    near = g if g is not None and g.near else None
    return {
        "schema": SCHEMA,
        "command": "diff",
        "a": a,
        "b": b,
        "verdict": found.verdict,
        "exit_code": found.exit_code,
        "reason": found.reason,
        "residual": None if near is None else near.residual,
        "floor": None if near is None else near.floor,
        "similarity": None if g is None else g.similarity,
        "chance": None if g is None else g.chance,
        "answers": None if g is None else g.answers,
        "element": target,
        "undetermined": [] if g is None else list(g.undetermined),
        "bonds": []
        if g is None
        else [{"name": x.name, "group": x.group, "size": x.size, "delta": x.delta, "rank": x.rank} for x in g.bonds],
        "parameters": []
        if near is None
        else [
            {"name": r.name, "residual": r.relative, "floor": r.floor / r.norm if r.norm else 0.0} for r in near.rows
        ],
        "settings": {k: list(v) for k, v in found.settings.items()},
        "notes": list(found.notes),
        "seconds": {"total": seconds},
        "peak_memory_bytes": peak_memory_bytes(),
    }
