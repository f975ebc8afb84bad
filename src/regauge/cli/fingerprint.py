"""`regauge fingerprint` and `regauge match`: sketches that the gauge group leaves alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from regauge.cli.progress import Watch, peak_memory_bytes
from regauge.errors import InputError

SCHEMA = 1
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def fingerprint(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for inspect.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="[default: MODEL.sketch]", dir_okay=False, show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    unknown: Annotated[
        str, typer.Option("--unknown", help="raise, or freeze what touches an operator without a rule.")
    ] = "raise",
    as_json: AsJson = False,
) -> None:
    """Write a sketch of MODEL of fixed length: equal for every gauge, near for fine-tunes, far for other models."""
    from regauge.cli.app import emit
    from regauge.jobs.fingerprint import SIZE
    from regauge.jobs.fingerprint import fingerprint as run
    from regauge.report.compared import sketched

    target = out or Path(Path(model.replace(":", ".")).expanduser().resolve().name + ".sketch")
    if target.exists() and not force:
        raise InputError(f"{target}: exists: name another file with --out, or replace it with --force")
    with Watch(as_json) as watch:
        made = run(model, unknown=unknown, tell=watch.stage)
        made.save(target)
    result = {
        "schema": SCHEMA,
        "command": "fingerprint",
        "spec": model,
        "class": made.model,
        "make": made.sketch.make,
        "file": str(target),
        "bytes": SIZE,
        "seconds": {"total": watch.seconds},
        "peak_memory_bytes": peak_memory_bytes(),
    }
    emit(result, as_json, sketched)


def match(
    sketches: Annotated[list[Path], typer.Argument(metavar="SKETCHES...", help="Files of `regauge fingerprint`.")],
    as_json: AsJson = False,
) -> None:
    """Compare sketches with one another, the most similar first."""
    from regauge.cli.app import emit
    from regauge.jobs.match import match as run
    from regauge.report.compared import matched

    pairs = run(sketches)
    emit({"schema": SCHEMA, "command": "match", "pairs": [asdict(p) for p in pairs]}, as_json, matched)
