"""`regauge apply` and `regauge undo`: a checkpoint in another gauge, and back."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from regauge.cli.progress import Watch, peak_memory_bytes

SCHEMA = 1


class Verify(StrEnum):
    """How the result is checked."""

    full = "full"
    sample = "sample"
    none = "none"


class Engine(StrEnum):
    """Who writes the files."""

    local = "local"
    ray = "ray"


class Compute(StrEnum):
    """What products are computed in."""

    auto = "auto"
    float32 = "float32"
    float64 = "float64"


class Norm(StrEnum):
    """What `--balance` makes least."""

    l2 = "l2"
    linf = "linf"
    spectral = "spectral"


Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN", help="A local Hugging Face directory, a .gguf file, package.module:factory, or a .pt2 program."
    ),
]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.")]
VerifyOption = Annotated[
    Verify,
    typer.Option(
        "--verify",
        help="full: double precision, before and after rounding; sample: the stored weights, in single precision.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes on this machine.")]
ShardSize = Annotated[
    str, typer.Option("--shard-size", help="The files of IN are kept unless one is larger than this.")
]


def apply(
    source: Source,
    target: Target,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="A YAML file with steps, instead of the options.", dir_okay=False)
    ] = None,
    untie: Annotated[bool, typer.Option("--untie", help="Give tied tensors copies of their own.")] = False,
    fold: Annotated[bool, typer.Option("--fold", help="Gains (and shifts) of norms into their readers.")] = False,
    rotate: Annotated[
        list[str] | None,
        typer.Option(
            "--rotate",
            metavar="[BOND=]HOW",
            help="BOND: a name or a kind (stream, heads, ...); HOW: hadamard, orthogonal, pca=MOMENTS.npy, or the file of "
            "a matrix. May be repeated.",
        ),
    ] = None,
    balance: Annotated[Norm | None, typer.Option("--balance", help="The smallest weights of the orbit.")] = None,
    canonical: Annotated[bool, typer.Option("--canonical", help="One representative for the whole orbit.")] = False,
    random: Annotated[
        int | None, typer.Option("--random", metavar="SEED", help="A random element of the group.")
    ] = None,
    prune_redundant: Annotated[
        bool,
        typer.Option(
            "--prune-redundant", help="Remove units that are dead, constant or equal to others; widths follow."
        ),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the random signs and matrices of --rotate.")] = 0,
    verify: VerifyOption = Verify.full,
    force: Force = False,
    rank: Annotated[int, typer.Option("--rank", help="Write every WORLD-th file, from this one.")] = 0,
    world: Annotated[int, typer.Option("--world", help="How many processes share the job.")] = 1,
    engine: Annotated[Engine, typer.Option("--engine", help="local processes, or a Ray cluster.")] = Engine.local,
    workers: Workers = 1,
    shard_size: ShardSize = "5GB",
    compute: Annotated[
        Compute, typer.Option("--dtype-compute", help="auto: float32 for weights of 16 bits, else float64.")
    ] = Compute.auto,
    observe: Annotated[
        str | None, typer.Option("--observe", help="What must not change: logits or probabilities.")
    ] = None,
    unknown: Annotated[
        str, typer.Option("--unknown", help="raise, or freeze what touches an operator without a rule.")
    ] = "raise",
    keep_unused: Annotated[
        bool, typer.Option("--keep-unused", help="Copy matrices that the model does not read, instead of refusing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the checkpoint IN into OUT in another gauge: same function, other weights; proved, and undone by `undo`."""
    from regauge.jobs import recipes
    from regauge.jobs.apply import apply as run

    chosen = {"untie": untie, "fold": fold, "rotate": tuple(rotate or ()), "balance": balance and balance.value,
              "canonical": canonical, "random": random, "prune_redundant": prune_redundant}  # fmt: skip
    if recipe is not None and any(v not in (False, (), None) for v in chosen.values()):
        raise typer.BadParameter("give either --recipe or the options that say the steps")
    steps = recipes.from_file(recipe) if recipe else recipes.from_options(**chosen, seed=seed)  # type: ignore[arg-type]
    with Watch(as_json) as watch:
        record = run(
            source, target, steps, verify=verify.value, force=force, rank=rank, world=world, engine=engine.value,
            workers=workers, shard_size=shard_size, compute=compute.value, observe=observe, unknown=unknown,
            keep_unused=keep_unused, progress=watch.bytes, tell=watch.stage,
        )  # fmt: skip
    show("apply", source, target, record, watch.seconds, as_json, rank)


def undo(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A result of `regauge apply`.")],
    target: Target,
    verify: VerifyOption = Verify.full,
    force: Force = False,
    workers: Workers = 1,
    shard_size: ShardSize = "5GB",
    as_json: AsJson = False,
) -> None:
    """Write into OUT the checkpoint that DIR was made from, up to rounding."""
    from regauge.jobs.undo import undo as run

    with Watch(as_json) as watch:
        record = run(source, target, verify=verify.value, force=force, workers=workers, shard_size=shard_size,
                     progress=watch.bytes, tell=watch.stage)  # fmt: skip
    show("undo", source, target, record, watch.seconds, as_json, 0)


def show(
    command: str, source: Path, target: Path, record: dict[str, Any] | None, seconds: float, as_json: bool, rank: int
) -> None:
    from regauge.cli.app import emit
    from regauge.report.jobs import applied

    size = sum((target / f).stat().st_size for f in record["output"]["files"]) if record else 0
    result = {
        "schema": SCHEMA,
        "command": command,
        "source": str(source),
        "target": str(target),
        "rank": rank,
        "bytes": size,
        "record": record,
        "seconds": {"total": seconds},
        "peak_memory_bytes": peak_memory_bytes(),
    }
    emit(result, as_json, applied)
