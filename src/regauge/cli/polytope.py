"""`regauge polytope`: train a network towards the round ball, say which polytope it is, and show it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from regauge.errors import InputError

if TYPE_CHECKING:
    from regauge.polytope import StarBody, Trained


class Unit(StrEnum):
    """The hidden units."""

    abs = "abs"
    relu = "relu"
    leaky = "leaky"


def polytope(
    dim: Annotated[int, typer.Option("--dim", "-d", help="Dimension of the input.")] = 3,
    units: Annotated[
        list[int] | None, typer.Option("--units", "-n", help="Hidden units; repeat for more layers. [default: 6]")
    ] = None,
    activation: Annotated[Unit, typer.Option("--activation", help="What a hidden unit does.")] = Unit.abs,
    slope: Annotated[float, typer.Option("--slope", help="Slope below zero of leaky units.")] = 0.01,
    seed: Annotated[int, typer.Option("--seed", help="Of the random start.")] = 0,
    steps: Annotated[int, typer.Option("--steps", help="Training steps, for more than one hidden layer.")] = 2000,
    polish: Annotated[
        bool | None,
        typer.Option(
            "--polish/--no-polish",
            help="More than one hidden layer: go on to the last digit.  [default: up to 80 weights, d <= 3]",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option("--tolerance", help="Relative size that counts as zero.")] = 1e-6,
    exact: Annotated[
        bool, typer.Option("--exact", help="Decide in rational arithmetic, on the weights as floats.")
    ] = False,
    frames: Annotated[int, typer.Option("--frames", help="Steps of training that the page shows.")] = 24,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "--out", "-o", help="Also write .html (interactive), .obj, .off, .stl or .glb; repeat.", dir_okay=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --out replace a file that stands.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Train a bias-free network towards f = 1 on the sphere; name the polytope {f <= 1}, and draw it."""
    from regauge.polytope import describe, extract, mesh, save, train, train_deep

    widths, files = list(units or [6]), list(out or [])
    for file in files:
        check_file(file, dim, force)
    shown = frames if any(file.suffix == ".html" for file in files) else 0
    if len(widths) == 1:
        trained = train(dim, widths[0], activation.value, slope=slope, seed=seed, frames=shown)
    else:
        weights = sum(a * b for a, b in zip([dim, *widths], [*widths, 1], strict=True))
        done = polish if polish is not None else dim <= 3 and weights <= 80
        trained = train_deep(
            dim, widths, activation.value, slope=slope, seed=seed, steps=steps, frames=shown, polish=done
        )
    body = extract(trained.network, exact=exact, tolerance=tolerance)
    title = describe(body)
    if as_json:
        typer.echo(json.dumps(plain(trained, body, title), indent=2))
    else:
        show(trained, body, title)
    for file in files:
        if file.suffix == ".html":
            write_page(trained, body, file, tolerance, force)
        else:
            save(mesh(body), file, force=force)
        typer.echo(f"wrote {file}", err=as_json)


def check_file(file: Path, dim: int, force: bool) -> None:
    """Find out before the work whether the file can be written."""
    if file.suffix not in (".html", ".obj", ".off", ".stl", ".glb"):
        raise InputError(f"{file}: unknown format; end its name in .html, .obj, .off, .stl or .glb.")
    largest = 4 if file.suffix == ".html" else 3
    if dim > largest:
        raise InputError(f"{file}: {file.suffix} shows at most {largest} dimensions, not {dim}; leave it out.")
    if file.exists() and not force:
        raise InputError(f"{file} exists already; name another file, or replace it with --force.")


def write_page(trained: Trained, body: StarBody, file: Path, tolerance: float, force: bool) -> None:
    """The page with the bounded bodies along training and the last one."""
    from regauge.polytope import extract, rms, save_page

    bodies = [extract(net, tolerance=tolerance) for net in trained.path[:-1]]
    kept = [(net, b) for net, b in zip(trained.path, bodies, strict=False) if b.bounded]
    facts = [[("rms of f - 1", f"{rms(net):.4f}")] for net, _ in kept] + [[("rms of f - 1", f"{trained.rms:.7f}")]]
    save_page([*(b for _, b in kept), body], file, force=force, facts=facts)


def plain(trained: Trained, body: StarBody, title: str) -> dict[str, Any]:
    """The answer as JSON data."""
    from regauge.polytope import summary

    return {
        "polytope": title,
        "rms": trained.rms,
        "gradient": trained.gradient,
        "f_vector": list(body.f_vector),
        "convex": body.convex,
        "bounded": body.bounded,
        "volume": float(body.volume) if body.bounded else None,
        "certified": body.certified,
        "vertices": body.vertices.astype(float).tolist(),
        "summary": dict(summary(body)),
    }


def show(trained: Trained, body: StarBody, title: str) -> None:
    """The table on the terminal."""
    from regauge.polytope import summary

    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_row("network", repr(trained.network))
    table.add_row("rms of f - 1", f"{trained.rms:.7f}")
    table.add_row("largest gradient", f"{trained.gradient:.1e}")
    for key, value in summary(body):
        table.add_row(key, value)
    Console(highlight=False).print(table)
