"""A job: one checkpoint to be written in another gauge, as a directory beside the target that any process can work on.

.TARGET.regauge/
  job.json      what is done, and to which input: a run with the same words goes on where this one stopped
  before/       the config.json of the model that the gauge is of, where it is not the input's
  after/        the config.json of the result, where it is not the input's
  gauge.json    the gauge, from which every worker reads the same plan
  element       the element
  done/         a record for each file that is written
  parts/        files in the making
  result/       what becomes TARGET
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import regauge
from regauge.act import Recipe
from regauge.act.prune import Smaller, redundant
from regauge.act.recipe import After
from regauge.act.removal import Removal
from regauge.checkpoint.lazy import LazyState
from regauge.checkpoint.naming import Group, Naming
from regauge.checkpoint.opened import Sample
from regauge.checkpoint.shards import open_shards
from regauge.checkpoint.spec import open_model
from regauge.checkpoint.weights import read_json
from regauge.checkpoint.writer import Slot
from regauge.errors import InputError
from regauge.graph.posing import posing_as_cpu
from regauge.jobs import files, packing
from regauge.jobs.layout import OutFile, layout
from regauge.jobs.source import Origin, Patch, Untied, open_origin, patched, skeleton
from regauge.jobs.widths import Fitted, fit
from regauge.solve.element import Element
from regauge.solve.gauge import Gauge
from regauge.solve.state import State

SCHEMA = 2
BEFORE, AFTER = "before", "after"
RECORD = "regauge.json"  # what stands beside the weights of a result
ELEMENT = "regauge.element"
DTYPES = {"float32": torch.float32, "float64": torch.float64}
Tell = Callable[[str], None]
Choose = Callable[[Gauge, Mapping[str, torch.Tensor]], Element]


@dataclass(frozen=True)
class Settings:
    """Everything that decides the bytes of the result, as plain data. recipe: `act.Recipe.plain()`; undo: the digest of
    the element file that is taken back. tensors: digests of the matrices that the recipe names. prune: the options of
    prune-redundant, if that is asked for. model: a factory or a program, where no config.json describes the input.
    dequantised: the file that the input was made from, with its sha256."""

    recipe: Any
    untie: bool = False
    observe: str | None = None
    unknown: str = "raise"
    compute: str = "auto"
    shard_size: int = 5 * 10**9
    keep_unused: bool = False
    tensors: Mapping[str, str] = field(default_factory=dict)
    dequantised: Mapping[str, str] = field(default_factory=dict)
    undo: str | None = None
    prune: Mapping[str, Any] | None = None
    model: str | None = None


@dataclass
class Job:
    """A prepared job. `data` is the content of job.json."""

    home: Path
    data: dict[str, Any]
    gauge: Gauge
    element: Element
    sample: Sample | None = field(default=None, repr=False)

    @property
    def source(self) -> Path:
        return Path(self.data["source"])

    @property
    def result(self) -> Path:
        return self.home / "result"

    @cached_property
    def files(self) -> tuple[OutFile, ...]:
        return tuple(
            OutFile(f["name"], f["metadata"], tuple(Slot(n, d, tuple(s)) for n, d, s in f["slots"]))
            for f in self.data["files"]
        )

    @cached_property
    def model(self) -> Sample:
        """The model without memory; built again where this process has not inferred the gauge."""
        if self.sample is None and self.data["settings"]["model"]:
            return open_model(self.data["settings"]["model"]).skeleton()
        return self.sample or skeleton(self.source, self.home / BEFORE if self.data["untied"] else self.source)

    @cached_property
    def smaller(self) -> Smaller | None:
        """What is cut, where units go."""
        removals = [Removal.of(r) for r in self.data["removals"]]
        return Smaller(self.gauge.plan, removals) if removals else None

    def image(self, moved: State, name: str, dtype: torch.dtype) -> torch.Tensor | None:
        """A parameter of the result by its canonical name; None if it is the input's."""
        if self.smaller is not None and name in self.smaller.tensors:
            return self.smaller.result(moved, name).to(dtype)
        return moved.result(name, dtype)

    def parts(self, moved: State, name: str, dtype: torch.dtype) -> Iterator[torch.Tensor] | None:
        """The entries of `image` in flat parts one after another, each as soon as it is computed."""
        if self.smaller is not None and name in self.smaller.tensors:
            return iter((self.smaller.result(moved, name).to(dtype).reshape(-1),))
        return moved.parts(name, dtype)

    @cached_property
    def naming(self) -> Naming:
        held = self.data["naming"]
        groups = tuple(Group(tuple(f), tuple(p)) for f, p in held["groups"])
        return Naming(held["plain"], groups, tuple(held["unused"]), self.model.model if groups else None)

    @cached_property
    def state(self) -> Untied:
        """The input under the names of the model."""
        return Untied(LazyState(open_shards(self.source), self.naming), self.data["copies"])

    def before(self, dtype: torch.dtype | None = None, crew: Executor | None = None) -> State:
        return State(self.gauge.plan, self.state, dtype or self.dtype, crew=crew)

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.data["compute"]]

    def canonical(self) -> dict[str, str]:
        """Each name of the model under which the gauge may have a parameter -> its name there."""
        plan = self.gauge.plan
        return {n: name for name in plan.shapes for n in (name, *plan.aliases.get(name, ()))}


def home_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.regauge")


def versions() -> dict[str, str]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("regauge", "torch", "transformers", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def identity(source: Path, settings: Settings) -> str:
    """The same for two runs that would write the same bytes, as far as names, sizes and times of the input tell."""
    read = [
        source / "config.json",
        *sorted(source.glob("*.safetensors")),
        *sorted(source.glob("*.safetensors.index.json")),
    ]
    inputs = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in read if p.is_file()]
    return files.digest_of([str(source.resolve()), inputs, asdict(settings), versions()])


def prepare(
    source: Path, target: Path, settings: Settings, choose: Choose | None = None, tell: Tell | None = None
) -> Job:
    """The job in its directory: the one that stands there if it is the same, else a new one.

    choose: computes the element from the gauge and the state; by default the recipe does. Raises InputError where another
    run with other words is at work on the same target."""
    home, wanted = home_of(target), identity(source, settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    home.mkdir(exist_ok=True)
    with files.locked(home / "lock"):
        if (home / "job.json").is_file():
            data = read_json(home / "job.json")
            if data.get("identity") == wanted:
                return open_job(home)
            _require_idle(home, target)
        for name in ("job.json", "gauge.json", "element", BEFORE, AFTER, "done", "parts", "result"):
            files.remove(home / name)
        return _made(home, source, settings, wanted, choose, tell or (lambda _: None))


def _made(home: Path, source: Path, settings: Settings, wanted: str, choose: Choose | None, tell: Tell) -> Job:
    tell("reading headers")
    origin = open_origin(source, home / BEFORE, settings.untie, settings.keep_unused, settings.model)
    tell("inferring the gauge")
    with posing_as_cpu(origin.sample.model):
        gauge = regauge.infer(
            origin.sample.model, origin.sample.args, origin.sample.kwargs,
            observe=settings.observe, unknown=settings.unknown, progress=tell,
        )  # fmt: skip
    tell("choosing the element")
    element = (choose or Recipe.of(settings.recipe).element)(gauge, origin.state)
    cuts = Fitted((), (), ())
    if settings.prune is not None:
        tell("looking for redundant units")
        cuts = fitted(source, home, origin, gauge, element, settings)
    retied = unpatched(source) if settings.undo else Retied()
    write_config(home, origin.config, (*origin.patches, *cuts.patches, *retied.patches))
    shapes = shapes_of_files(origin, Smaller(gauge.plan, cuts.removals)) if cuts.removals else {}
    out = layout(origin.state.lazy.shards, origin.added, set(retied.dropped), settings.shard_size, shapes)
    for name in ("done", "parts", "result"):
        (home / name).mkdir()
    files.require_space(home, sum(f.size for f in out))
    files.write_text(home / "gauge.json", gauge.to_json())
    packing.save_element(element, home / "element")
    element = packing.load_element(
        home / "element", gauge.plan
    )  # the same strides, and so the same bits, as for a later run
    data = job_data(origin, retied, cuts, source, settings, wanted, out)
    files.write_json(home / "job.json", data)
    element = packing.load_element(
        home / "element", gauge.plan
    )  # as every other process has it, to the place in memory
    return Job(home, data, gauge, element, origin.sample)


@dataclass(frozen=True)
class Retied:
    """What taking back an untying does: entries of config.json, and tensors that the result has not (name of the model ->
    the one that it is tied to)."""

    patches: tuple[Patch, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)


def unpatched(source: Path) -> Retied:
    """What an earlier run untied, the other way round."""
    record = read_json(source / RECORD)
    return Retied(tuple(Patch(p.path, p.new, p.old) for p in patches_of(record["config"])), record["added"])


def write_config(home: Path, config: dict[str, Any], patches: tuple[Patch, ...]) -> None:
    """The config.json of the result, where it is not the input's."""
    if patches:
        (home / AFTER).mkdir(exist_ok=True)
        files.write_json(home / AFTER / "config.json", patched(config, patches))


def fitted(source: Path, home: Path, origin: Origin, gauge: Gauge, element: Element, settings: Settings) -> Fitted:
    """The units that go: all that are redundant, or as many as config.json can follow. Raises InputError where none is."""
    found = redundant(gauge, After(element, origin.state), **(settings.prune or {}))
    if not found.removals:
        stay = f" ({'; '.join(found.left)})" if found.left else ""
        raise InputError(
            f"{source}: no unit is redundant{stay}: leave out prune-redundant (`regauge inspect MODEL --at-weights` shows how far "
            "the nearest is; {tolerance: X} takes those within X)"
        )
    if settings.model is not None:
        return Fitted(found.removals, (), found.left)
    fitting = fit(source, home / AFTER, origin.config, gauge.plan, found.removals)
    return replace(fitting, left=(*fitting.left, *found.left))


def shapes_of_files(origin: Origin, smaller: Smaller) -> dict[str, tuple[int, ...]]:
    """Tensor of the files -> its new shape."""
    plan, lazy = smaller.plan, origin.state.lazy
    found: dict[str, tuple[int, ...]] = {}
    for name in smaller.tensors:
        for alias in dict.fromkeys((name, *plan.aliases.get(name, ()))):
            if alias in lazy.groups:
                raise InputError(
                    f"{lazy.groups[alias].files[0]}: is joined with others on loading, so that its units cannot be removed"
                )
            if alias in lazy.files:
                found[lazy.files[alias]] = smaller.shape(name)
    return found | {new: found[old] for new, old in origin.added.items() if old in found}


def job_data(
    origin: Origin,
    retied: Retied,
    cuts: Fitted,
    source: Path,
    settings: Settings,
    wanted: str,
    out: tuple[OutFile, ...],
) -> dict[str, Any]:
    names = origin.state.lazy.naming
    return {
        "schema": SCHEMA,
        "identity": wanted,
        "source": str(source.resolve()),
        "settings": asdict(settings),
        "compute": compute_dtype(origin, settings.compute),
        "versions": versions(),
        "untied": bool(origin.patches),
        "patches": [asdict(p) for p in (*origin.patches, *cuts.patches, *retied.patches)],
        "removals": [r.plain() for r in cuts.removals],
        "left": list(cuts.left),
        "dropped": dict(retied.dropped),
        "copies": origin.state.copies,
        "added": origin.added,
        "naming": {
            "plain": {**names.plain, **{n: n for n in origin.added}},
            "groups": [[list(g.files), list(g.params)] for g in names.groups],
            "unused": list(names.unused),
        },
        "index": origin.state.lazy.shards.index,
        "files": [
            {"name": f.name, "metadata": f.metadata, "slots": [[s.name, s.dtype, list(s.shape)] for s in f.slots]}
            for f in out
        ],
    }


def compute_dtype(origin: Origin, asked: str) -> str:
    """float32 is enough where most bytes are stored in 16 bits: it errs 65,000 times less than storing them does."""
    if asked != "auto":
        return asked
    sizes = {d: 0 for d in ("F64", "F32", "F16", "BF16")}
    for e in origin.state.lazy.shards.entries.values():
        if e.dtype in sizes:
            sizes[e.dtype] += e.size
    return "float32" if sizes["F16"] + sizes["BF16"] > sizes["F32"] + sizes["F64"] else "float64"


def open_job(home: Path) -> Job:
    """A job that was prepared, by this process or another. Raises InputError where it cannot be read."""
    data = read_json(home / "job.json")
    gauge = Gauge.from_json((home / "gauge.json").read_text(encoding="utf-8"))
    return Job(home, data, gauge, packing.load_element(home / "element", gauge.plan))


def patches_of(held: list[dict[str, Any]]) -> tuple[Patch, ...]:
    return tuple(Patch(tuple(p["path"]), p["old"], p["new"]) for p in held)


@contextmanager
def at_work(home: Path) -> Iterator[None]:
    """Held while a process works on a job, so that no run with other words takes its place."""
    with (home / "running").open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        yield


def _require_idle(home: Path, target: Path) -> None:
    with (home / "running").open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{target}: another run with other options is writing it (in {home.name}): wait for it, or stop it first"
            ) from None


def process_tag() -> str:
    """Tells apart the parts of processes on one or several machines."""
    import socket

    return f"{socket.gethostname()}-{os.getpid()}"
