"""`regauge flow ...`: fewer function evaluations for neural ODEs. A Typer sub-application."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regauge.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

app = typer.Typer(no_args_is_help=True, help="Gauges of neural ODEs: fewer function evaluations for the same flow.")


class Solver(StrEnum):
    euler = "euler"
    midpoint = "midpoint"
    heun = "heun"
    rk4 = "rk4"
    rk4_38 = "rk4_38"


class Calls(StrEnum):
    """The order of a model's arguments."""

    tx = "tx"
    xt = "xt"


Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="package.module:factory, or a .pt2 exported program.", show_default=False),
]


@app.command()
def tune(
    model: Model,
    solver: Annotated[
        Solver, typer.Option(help="The method that will sample; rk4_38 is what torchdiffeq calls rk4.")
    ] = Solver.midpoint,
    steps: Annotated[int, typer.Option(help="Its number of steps; evaluations are steps x stages.", min=1)] = 8,
    shape: Annotated[
        str, typer.Option(help="The shape of one state, like 2 or 3,32,32.  [default: the example's]")
    ] = "",
    calls: Annotated[
        Calls, typer.Option(help="The order of the model's arguments: model(t, x) or model(x, t).")
    ] = Calls.tx,
    noise: Annotated[
        Path | None,
        typer.Option(help="Start states, a .npy file (n, ...).  [default: standard normal]", dir_okay=False),
    ] = None,
    samples: Annotated[int, typer.Option(help="How many: 3/4 to tune on, 1/4 to choose on.", min=16)] = 8192,
    iterations: Annotated[int, typer.Option(help="Of the per-step gauge; 0 leaves it out.", min=0)] = 60,
    start: Annotated[float, typer.Option(help="The time of the noise.")] = 0.0,
    end: Annotated[float, typer.Option(help="The time of the data.")] = 1.0,
    out: Annotated[Path, typer.Option(help="Where the gauge goes.", dir_okay=False)] = Path("gauge.safetensors"),
    force: Annotated[bool, typer.Option("--force", help="Let --out replace a file that stands.")] = False,
    seed: Annotated[int, typer.Option(help="Of the noise and of the search.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Find the gauge in which this solver with this number of steps is most accurate for MODEL."""
    from regauge.flow import TuneOptions
    from regauge.flow import tune as search

    if out.exists() and not force:
        raise InputError(f"{out}: exists: name another file, or replace it with --force")
    field, example = load_field(model, calls.value)
    states = start_states(noise, shape, example, samples, seed)
    options = TuneOptions(seed=seed, step_iterations=iterations, comoving=iterations > 0)
    with bar(quiet=as_json) as progress:
        tuned = search(field, states, solver.value, steps, start=start, end=end, options=options, progress=progress)
    tuned.model.save(out, note={"model": model, "seed": seed}, force=force)
    if as_json:
        print(json.dumps(summary(tuned, out), indent=2))
        return
    print(f"{solver.value}, {steps} steps, {tuned.model.evaluations} evaluations; rmse on held-out noise")
    print(tuned)
    print(f"gauge written to {out}; load it with regauge.flow.load_tuned({str(out)!r}, model)")


@app.command()
def show(gauge: Annotated[Path, typer.Argument(help="A file that `flow tune` wrote.", dir_okay=False)]) -> None:
    """Say what a gauge file holds."""
    import torch

    from regauge.flow import load_tuned

    tuned = load_tuned(gauge, lambda t, x: torch.zeros_like(x))
    print(f"{tuned.sampler.method}, {tuned.sampler.steps} steps, {tuned.evaluations} evaluations, states {tuned.shape}")
    print(
        f"sampler: {type(tuned.sampler).__name__}; stateless gauge: {tuned.gauge_name}; "
        f"dressing needed: {tuned.needs_dressing}"
    )
    grid = torch.linspace(0, 1, 9, dtype=torch.float64)
    with torch.no_grad():
        print("t(r): " + " ".join(f"{t:.3f}" for t in tuned.gauge.clock(grid).tolist()))


def load_field(spec: str, calls: str) -> tuple[Any, Tensor | None]:
    """(field (t, x), example state or None) of a factory `package.module:name` or a .pt2 program."""
    import torch

    from regauge.flow import from_xt

    example: Any = None
    if spec.endswith(".pt2"):
        try:
            program = torch.export.load(spec)
        except Exception as error:
            raise InputError(
                f"{spec}: torch.export.load cannot read it ({error}); pass a file of torch.export.save"
            ) from error
        module: Any = program.module()
        example = program.example_inputs[0] if program.example_inputs else None
    else:
        made = _factory(spec)()
        module, example = (made[0], made[1]) if isinstance(made, tuple) else (made, None)
        if isinstance(module, torch.nn.Module):
            module.eval()
    if not callable(module):
        raise InputError(
            f"{spec}: gives a {type(module).__name__}; a factory returns a module, or (module, example inputs)"
        )
    state = None if not example else example[1 if calls == "tx" else 0]
    return (from_xt(module) if calls == "xt" else module), state


def _factory(spec: str) -> Any:
    name, _, attribute = spec.partition(":")
    if not attribute:
        raise InputError(f"{spec}: name a factory as package.module:function, or a .pt2 file")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{spec}: cannot be imported ({error}); check the name and the working directory") from error
    finally:
        sys.path.pop(0)


def start_states(noise: Path | None, shape: str, example: Tensor | None, samples: int, seed: int) -> Tensor:
    """(n, ...) start states from a file or from the standard normal."""
    import numpy
    import torch

    if noise is not None:
        try:
            return torch.from_numpy(numpy.load(noise, allow_pickle=False)).float()
        except (OSError, ValueError) as error:
            raise InputError(f"{noise}: cannot be read ({error}); pass an .npy file of start states") from error
    if shape:
        try:
            size = tuple(int(part) for part in shape.split(","))
        except ValueError as error:
            raise InputError(f"--shape {shape}: not a list of numbers; write it like 3,32,32") from error
    elif example is not None:
        size = tuple(example.shape[1:])
    else:
        raise InputError("the model has no example inputs, so the shape of a state is not known; pass --shape")
    return torch.randn(samples, *size, generator=torch.Generator().manual_seed(seed))


def summary(tuned: Any, out: Path) -> dict[str, Any]:
    """The table as plain data."""
    return {
        "chosen": tuned.chosen,
        "evaluations": tuned.model.evaluations,
        "reference_error": tuned.reference_error,
        "file": str(out),
        "candidates": [{"name": c.name, "rmse": c.rmse, "parameters": c.parameters} for c in tuned.candidates],
    }


@contextmanager
def bar(quiet: bool) -> Iterator[Any]:
    """A progress callback (label, done, total) with a bar on stderr."""
    from rich.console import Console
    from rich.progress import Progress, TimeRemainingColumn

    if quiet:
        yield None
        return
    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reference", total=None)
        yield lambda label, done, total: progress.update(task, description=label, completed=done, total=total)
