"""`regauge export-mapping`: what quantisation tools keep by hand."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from regauge.cli.progress import chatter_off
from regauge.errors import InputError


class Tool(StrEnum):
    """Who reads the mapping."""

    llmcompressor = "llmcompressor"
    autoround = "autoround"


def export_mapping(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A local Hugging Face directory; no weights are read.")],
    tool: Annotated[Tool, typer.Option("--for", help="The tool whose form is filled in.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the JSON here.  [default: stdout]", dir_okay=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --out replace a file that stands.")] = False,
) -> None:
    """Write the mapping that a quantisation tool needs to rotate MODEL, read off its gauge instead of a table."""
    from regauge.jobs.files import write_json
    from regauge.jobs.mapping import export_mapping as run

    if out is not None and out.exists() and not force:
        raise InputError(f"{out}: exists: name another file, or replace it with --force")
    with chatter_off():
        found = run(model, tool.value)
    if out is None:
        print(json.dumps(found, indent=2))
    else:
        write_json(out, found)
        print(out)
