"""`regauge VERB MODEL`: what the shell sees. Exit codes: 0 proved, 1 a check failed, 2 bad usage or unreadable input,
3 operators without a rule."""

from __future__ import annotations

import json
import os
import sys
import traceback
from enum import StrEnum
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from regauge.errors import InputError, RegaugeError

DEBUG = "REGAUGE_DEBUG"
INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The symmetry compiler for neural networks.",
    epilog="Exit codes: 0 proved, 1 a check failed, 2 bad usage or unreadable input, 3 operators without a rule.",
)


class Observe(StrEnum):
    """What must not change."""

    logits = "logits"
    probabilities = "probabilities"


class Unknown(StrEnum):
    """What to do with an operator that has no rule."""

    raise_ = "raise"
    freeze = "freeze"


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A local Hugging Face directory, a .gguf file, package.module:factory, or a .pt2 exported program.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ObserveOption = Annotated[
    Observe | None,
    typer.Option("--observe", help="What must not change.  [default: every tensor that the model returns]"),
]
UnknownOption = Annotated[
    Unknown,
    typer.Option("--unknown", help="An operator without a rule: an error, or every axis that touches it is fixed."),
]


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"regauge {version('regauge')}")
        raise typer.Exit


VersionOption = Annotated[bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print it.")]


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """The symmetry compiler for neural networks."""


@app.command()
def inspect(
    model: Model,
    as_json: AsJson = False,
    observe: ObserveOption = None,
    unknown: UnknownOption = Unknown.raise_,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write one self-contained page.", dir_okay=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --html replace a file that stands.")] = False,
    at_weights: Annotated[
        bool,
        typer.Option(
            "--at-weights",
            help="Also read the weights: where do units coincide or sleep, or ranks drop, and how nearly?",
        ),
    ] = False,
    near: Annotated[float, typer.Option("--near", help="With --at-weights: what counts as near, relative.")] = 1e-3,
) -> None:
    """Infer the whole gauge group of MODEL, without its weights, and say what breaks the rest."""
    from regauge.cli import inspect as verb
    from regauge.report import inspection

    if html is not None and html.exists() and not force:
        raise InputError(f"{html}: exists: name another file, or replace it with --force")
    result = verb.inspect(
        model,
        None if observe is None else observe.value,
        unknown.value,
        quiet=as_json,
        at_weights=at_weights,
        near=near,
    )
    if html is not None:
        verb.write_page(html, result)
    emit(result, as_json, inspection)


@app.command()
def verify(
    model: Model,
    as_json: AsJson = False,
    observe: ObserveOption = None,
    unknown: UnknownOption = Unknown.raise_,
    seed: Annotated[int, typer.Option("--seed", help="Which element of the group is tried on the weights.")] = 0,
) -> None:
    """Prove the gauge group of MODEL on its weights: no function changes, no direction is missed."""
    from regauge.cli import verify as verb
    from regauge.report import verification

    result = verb.verify(model, None if observe is None else observe.value, unknown.value, seed=seed, quiet=as_json)
    emit(result, as_json, verification)
    if not result["proved"]:
        raise typer.Exit(1)


def add_applications() -> None:
    """The verbs of the applications that are installed: each is a module of this package."""
    if find_spec("regauge.cli.flow"):
        app.add_typer(import_module("regauge.cli.flow").app, name="flow")
    for module, verb in (
        ("apply", "apply"),
        ("apply", "undo"),
        ("mapping", "export_mapping"),
        ("diff", "diff"),
        ("fingerprint", "fingerprint"),
        ("fingerprint", "match"),
        ("polytope", "polytope"),
        ("paths", "paths"),
    ):
        if find_spec(f"regauge.cli.{module}"):
            app.command()(getattr(import_module(f"regauge.cli.{module}"), verb))


add_applications()


def emit(result: dict[str, Any], as_json: bool, render: Any) -> None:
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        Console(highlight=False).print(render(result))


def main() -> None:
    """The console script. Never a traceback, unless REGAUGE_DEBUG is set."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = app(arguments, standalone_mode=False, prog_name="regauge")
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at exit
        return 0
    except Exception as error:
        if (code := usage_error(error)) is not None:
            return code
        return complain(error, as_json="--json" in arguments)


def usage_error(error: Exception) -> int | None:
    """Show an error of the option parser and return its exit code; None for any other error."""
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if show is None or code is None:
        return None
    show()
    return int(code)


def complain(error: Exception, as_json: bool) -> int:
    """Say what went wrong on stderr (and as JSON on stdout, if asked for), and return the exit code."""
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    foreseen = isinstance(error, RegaugeError)
    code = error.exit_code if isinstance(error, RegaugeError) else InputError.exit_code
    message = str(error) if foreseen else unforeseen(error)
    if as_json:
        kind = type(error).__name__ if foreseen else "InternalError"
        print(json.dumps({"schema": 1, "error": {"kind": kind, "message": message, "exit_code": code}}, indent=2))
    print(f"regauge: {message}", file=sys.stderr)
    return code


def unforeseen(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    reason = (str(error).strip().split("\n") or [""])[0][:300]
    return (
        f"internal error: {type(error).__name__}{where}: {reason}\nThis is a fault of regauge, not of the model: set "
        f"{DEBUG}=1 to see the traceback, and report it."
    )
