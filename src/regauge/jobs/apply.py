"""`apply`: a checkpoint in another gauge, written beside the old one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regauge.act import Recipe
from regauge.checkpoint.dequantise import dequantise, gguf_in
from regauge.checkpoint.materialise import materialise
from regauge.checkpoint.spec import open_model
from regauge.checkpoint.weights import read_json
from regauge.errors import InputError, RegaugeError
from regauge.jobs import engines, files
from regauge.jobs.finish import RECORD, finish, require_target
from regauge.jobs.job import Choose, Job, Settings, Tell, at_work, home_of, identity, prepare
from regauge.jobs.layout import parse_size
from regauge.jobs.recipes import digests
from regauge.jobs.shard import record_of

Progress = Callable[[int, int], None]  # bytes written so far, and in all
VERIFY = ("full", "sample", "none")


def apply(
    source: str | Path,
    target: str | Path,
    recipe: Recipe | Mapping[str, Any] | Sequence[Any],
    *,
    verify: str = "full",
    force: bool = False,
    rank: int = 0,
    world: int = 1,
    engine: str = "local",
    workers: int = 1,
    shard_size: int | str = "5GB",
    compute: str = "auto",
    observe: str | None = None,
    unknown: str = "raise",
    keep_unused: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> dict[str, Any] | None:
    """Write the checkpoint in `source` (a directory; a GGUF file: dequantised; the state dict of package.module:factory or of
    a .pt2 program) into the new directory `target`, in the gauge that `recipe` chooses.

    recipe: `act.Recipe` or its plain data, such as ["untie", "fold", {"rotate": {"bond": "stream"}}]. verify: "full" proves
    in double precision that the function is unchanged, before and after rounding; "sample" compares the stored weights in
    single precision; "none". rank, world: this process writes every world-th file only; the one that finishes last
    completes the result, and the others return None. engine: "local" (with `workers` processes) or "ray". shard_size: the
    files of the input are kept unless one is larger. compute: "float32", "float64" or "auto".
    progress: called with bytes written and bytes in all. tell: called with the name of each stage.

    Returns the record that stands in regauge.json. Nothing appears at `target` before it is complete; after an
    interruption the same call goes on where it stopped. Raises InputError for input that cannot be read or a target that
    exists without `force`; CheckError where the function changed.
    """
    source, target = Path(source), Path(target)
    if verify not in VERIFY:
        raise InputError(f"verify={verify!r}: expected one of {', '.join(VERIFY)}")
    if engine not in ("local", "ray"):
        raise InputError(f"engine={engine!r}: expected local or ray")
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.of(recipe)
    spec = None
    if not source.is_dir() and source.suffix != ".gguf":
        opened = open_model(str(source))
        spec = str(source.resolve()) if opened.kind == "program" else str(source)
    gguf = gguf_in(source) if spec is None else None
    made_from = {gguf[1]: files.sha256(gguf[0] / gguf[1])} if gguf else {}
    settings = Settings(
        recipe.plain(), recipe.unties, observe, unknown, compute,
        parse_size(shard_size) if isinstance(shard_size, str) else shard_size, keep_unused, digests(recipe), made_from,
        prune=recipe.pruning, model=spec,
    )  # fmt: skip
    with plain_weights(source, gguf, spec, target, tell or (lambda _: None)) as readable:
        return carry_out(readable, target, settings, recipe.element, verify=verify, force=force, rank=rank, world=world,
                         engine=engine, workers=workers, progress=progress, tell=tell)  # fmt: skip


@contextmanager
def plain_weights(
    source: Path, found: tuple[Path, str] | None, spec: str | None, target: Path, say: Tell
) -> Iterator[Path]:
    """The directory to read: `source`, or for a GGUF file, a factory or a program its tensors written out beside the target
    meanwhile."""
    if found is None and spec is None:
        yield source
        return
    scratch = target.with_name(f".{target.name}.regauge-input")
    written = scratch / (found[0].resolve().name if found else "weights")
    whole = scratch / "whole"
    if not whole.is_file():
        files.remove(scratch)
        written.mkdir(parents=True)
        say(f"reading {found[1] if found else source}")
        if found:
            dequantise(*found, written)
        else:
            materialise(open_model(str(spec)).loaded().model, written)
        whole.touch()
    yield written
    files.remove(scratch)  # kept after an error, for the run that goes on


def carry_out(
    source: Path,
    target: Path,
    settings: Settings,
    choose: Choose,
    *,
    verify: str,
    force: bool,
    rank: int = 0,
    world: int = 1,
    engine: str = "local",
    workers: int = 1,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> dict[str, Any] | None:
    """Prepare a job, write its files, complete it."""
    if not 0 <= rank < world:
        raise InputError(f"--rank {rank} --world {world}: ranks run from 0 to world - 1")
    if not source.is_dir():
        raise InputError(f"{source}: no such directory: name a local Hugging Face directory with safetensors")
    if source.resolve() == target.resolve():
        raise InputError(f"{target}: is the input: name another directory for the result")
    say = tell or (lambda _: None)
    wanted = identity(source, settings)
    if (found := finished(target, wanted)) is not None and world > 1:
        return found
    require_target(target, force)
    home = home_of(target)
    home.mkdir(parents=True, exist_ok=True)
    try:
        job = prepare(source, target, settings, choose, say)
    except RegaugeError:
        if world == 1 and not (home / "job.json").is_file():
            files.remove(home)  # there is nothing in it to go on with
        raise
    with at_work(home):
        say("writing")
        made = write(job, [i for i in range(len(job.files)) if i % world == rank], progress, engine, workers)
        return complete(job, target, wanted, made, verify, force, world, say)


def write(job: Job, wanted: list[int], progress: Progress | None, engine: str, workers: int) -> dict[str, str]:
    """Returns the sha256 of each file."""
    total, so_far = sum(job.files[i].size for i in wanted), 0

    def count(n: int) -> None:
        nonlocal so_far
        so_far += n
        if progress is not None:
            progress(min(so_far, total), total)

    if engine == "ray":
        return engines.on_ray(job, wanted, count, workers if workers > 1 else None)
    if workers > 1 and len(wanted) > 1:
        return engines.in_processes(job, wanted, count, min(workers, len(wanted)))
    return engines.in_process(job, wanted, count)


def complete(
    job: Job, target: Path, wanted: str, made: Mapping[str, str], verify: str, force: bool, world: int, say: Tell
) -> dict[str, Any] | None:
    """Finish the job if all its files are there; None if other ranks are still writing."""
    try:
        with files.locked(job.home / "lock"):
            if (found := finished(target, wanted)) is not None and world > 1:
                return found
            if any(record_of(job, f) is None for f in job.files):
                return None
            return finish(job, target, made, verify, force, say)
    except FileNotFoundError:
        if (found := finished(target, wanted)) is not None:
            return found
        raise


def finished(target: Path, wanted: str) -> dict[str, Any] | None:
    """The record of a result that a run with the same words has made."""
    path = target / RECORD
    if not path.is_file():
        return None
    record = read_json(path)
    return record if record.get("identity") == wanted else None
