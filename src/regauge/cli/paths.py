"""`regauge paths`: a potential's text in, a table of estimates beside exact values out, and a figure."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from regauge.errors import CheckError

if TYPE_CHECKING:
    from regauge.pathsum import PathSum


class Sampler(StrEnum):
    """How paths are drawn."""

    auto = "auto"
    independent = "independent"
    instanton = "instanton"
    annealed = "annealed"
    elliptical = "elliptical"
    hmc = "hmc"
    tempering = "tempering"
    nuts = "nuts"


class Ends(StrEnum):
    """What happens at the first and the last time."""

    periodic = "periodic"
    open = "open"


def paths(
    potential: Annotated[
        str, typer.Option("--potential", "-V", help='V, as in "x**2/2 + x**4"; more names are more coordinates.')
    ],
    beta: Annotated[float, typer.Option("--beta", help="Euclidean time, 1/temperature (hbar = 1).")] = 10.0,
    sites: Annotated[int, typer.Option("--sites", help="Points in time.")] = 64,
    samples: Annotated[int, typer.Option("--samples", help="Paths in all.")] = 20000,
    sampler: Annotated[Sampler, typer.Option("--sampler", help="How paths are drawn.")] = Sampler.auto,
    mass: Annotated[
        list[float] | None,
        typer.Option("--mass", help="Mass of each coordinate, in order of name; repeat. [default: 1]"),
    ] = None,
    ends: Annotated[Ends, typer.Option("--ends", help="Closed paths (a trace), or free ends.")] = Ends.periodic,
    seed: Annotated[int, typer.Option("--seed", help="Of the random numbers.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The figure: .svg, or .html (needs plotly).  [default: paths.svg, or the next free number]",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    figure: Annotated[bool, typer.Option("--figure/--no-figure", help="Write a figure at all.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Let --out replace a file that stands.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Sum over the paths of a potential with network weights; compare with the exact value on the same lattice."""
    from regauge.pathsum.figure import check_file, free_name, write_figure
    from regauge.pathsum.solve import solve

    if out is not None:
        check_file(out, force)
    answer = solve(potential, beta, sites, samples, sampler.value, seed, tuple(mass) if mass else None, ends.value)
    file = (out or free_name(Path())) if figure else None
    if file is not None:
        write_figure(answer, file, force)
    if as_json:
        typer.echo(
            json.dumps(plain(answer) | {"figure": None if file is None else str(file)}, indent=2, allow_nan=False)
        )
    else:
        show(answer)
        if file is not None:
            typer.echo(f"figure: {file}")
    if answer.doubts:
        raise CheckError("paths: the errors cannot be trusted: " + "; ".join(answer.doubts))


def plain(answer: PathSum) -> dict[str, Any]:
    """The answer as JSON data; numbers that are not finite become null."""

    def number(x: float | None) -> float | None:
        return None if x is None or x != x or x in (float("inf"), float("-inf")) else float(x)

    rows = [
        {
            "name": row.name,
            "estimate": number(row.average.value),
            "error": number(row.average.error),
            "exact": number(row.exact),
            "pull": number(row.pull),
            "effective_samples": number(row.average.size),
            "r_hat": number(row.average.r_hat),
        }
        for row in answer.rows
    ]
    return {
        "potential": answer.v.text,
        "sampler": answer.sample.sampler,
        "evaluations_per_path": answer.sample.evaluations,
        "efficiency": getattr(answer.sample, "efficiency", None),
        "rows": rows,
        "continuum_energies": None if answer.levels is None else list(answer.levels.energies),
        "doubts": list(answer.doubts),
        "missing": list(answer.missing),
    }


def show(answer: PathSum) -> None:
    """The table on the terminal."""
    from regauge.pathsum import ChainSample

    table = Table(title=Text(f"V = {answer.v.text}   ({answer.sample.sampler})"), title_justify="left")
    chains = isinstance(answer.sample, ChainSample)
    for name in ("", "estimate", "error", "exact", "pull", "ESS", *(["R-hat"] if chains else [])):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for row in answer.rows:
        exact = "" if row.exact is None else f"{round(row.exact, 8) + 0.0:.8f}"
        pull = "" if row.pull is None else f"{row.pull:+.1f}"
        a = row.average
        table.add_row(
            Text(row.name),
            f"{a.value:.6f}",
            f"{a.error:.6f}",
            exact,
            pull,
            f"{a.size:.0f}",
            *([f"{a.r_hat:.3f}"] if chains else []),
        )
    console = Console()
    console.print(table)
    for why in answer.missing:
        console.print(Text(f"no exact value: {why}", style="yellow"))
    if answer.levels is not None:
        levels = ", ".join(f"E{i} = {e:.10f}" for i, e in enumerate(answer.levels.energies))
        console.print(f"continuum limit: {levels}", highlight=False)
    efficiency = getattr(answer.sample, "efficiency", None)
    if efficiency is not None:
        console.print(f"effective samples per path: {efficiency:.3f}", highlight=False)
