"""The end of a job: everything beside the weights, the proof, the record, and the one rename that makes the result appear."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import regauge
from regauge.checkpoint.lazy import LazyState
from regauge.checkpoint.opened import Sample
from regauge.checkpoint.shards import Shards, open_shards
from regauge.checkpoint.weights import INDEX, read_json, safetensors_files
from regauge.errors import CheckError, InputError
from regauge.graph.canonical import canonical
from regauge.graph.capture import capture
from regauge.graph.ir import Graph, Param
from regauge.graph.posing import posing_as_cpu
from regauge.jobs import files
from regauge.jobs.job import AFTER, ELEMENT, RECORD, SCHEMA, Job, Tell
from regauge.jobs.proof import Function, Proof, prove
from regauge.jobs.shard import record_of, require_whole
from regauge.jobs.source import Untied, naming_of, skeleton
from regauge.rules.lower import lower
from regauge.solve.state import State

OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ot")


def finish(job: Job, target: Path, written: Mapping[str, str], verify: str, force: bool, tell: Tell) -> dict[str, Any]:
    """Complete the result and rename it to `target`. Returns the record. written: sha256 of the files that this run has
    made; those of other ranks are read again. verify: "full", "sample" or "none".

    Raises CheckError where the function changed; then nothing is left."""
    tell("hashing")
    made = require_whole(job, written)
    notes = copy_others(job)
    write_index(job)
    proof = None
    if verify != "none":
        proof = proved(job, verify, tell)
        try:
            proof.raise_if_failed()
        except CheckError:
            files.remove(job.home)
            raise
    tell("hashing the input")
    record = {**described(job, made), "verify": proof.as_data() if proof else None, "notes": notes}
    shutil.copyfile(job.home / "element", job.result / ELEMENT)
    record["element"] = {"file": ELEMENT, "sha256": files.sha256(job.result / ELEMENT)}
    files.write_json(job.result / RECORD, record)
    tell("renaming")
    files.put_in_place(job.result, target, force)
    files.remove(job.home)
    return record


def others(source: Path) -> Iterator[Path]:
    """Everything in a checkpoint but its weights, its index and the record of an earlier run, relative to it."""
    weights = {INDEX, *(p.name for p in safetensors_files(source)), RECORD, ELEMENT}
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        if path.is_file() and str(inner) not in weights and inner.parts[0] not in (".cache", ".git"):
            yield inner


def copy_others(job: Job) -> list[str]:
    """Copy what is not weights; config.json only if nothing in it changes. Returns notes."""
    stale = []
    for inner in others(job.source):
        to = job.result / inner
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(job.source / inner, to)
        except OSError as error:
            raise files.explained(to, error) from None
        if inner.suffix in OTHER_WEIGHTS or inner.suffix == ".safetensors":
            stale.append(str(inner))
    if job.data["patches"]:
        shutil.copyfile(job.home / AFTER / "config.json", job.result / "config.json")
    notes = []
    if stale:
        notes.append(f"copied as they are, in the old gauge: {', '.join(stale[:4])}{' ...' if len(stale) > 4 else ''}")
    if job.data["dropped"]:
        notes.append(f"tied again: {', '.join(job.data['dropped'])}")
    if job.data["added"]:
        notes.append(
            f"untied: {', '.join(job.data['added'])} is a tensor of its own now; loaders that ignore "
            "tie_word_embeddings=false in config.json, and formats that store one tensor for both, need the tied original"
        )
    if job.smaller is not None:
        notes += [str(r) for r in job.smaller.removals.values()]
        for p in job.data["patches"]:
            notes.append(f"config.json: {'.'.join(map(str, p['path']))} {p['old']} -> {p['new']}")
        if job.data["settings"]["model"]:
            notes += [str(a) for a in job.smaller.axes]
        notes += job.data["left"]
    if job.data["naming"]["unused"]:
        notes.append(
            f"{len(job.data['naming']['unused'])} tensor(s) that the model does not read were copied as they are"
        )
    return notes


def write_index(job: Job) -> None:
    """The index, where there are several files or the input has one: its other metadata are kept."""
    if len(job.files) == 1 and job.data["index"] is None:
        return
    metadata = dict(job.data["index"] or {})
    metadata["total_size"] = sum(f.size for f in job.files)
    places = {s.name: f.name for f in job.files for s in f.slots}
    order = [n for n in read_order(job) if n in places]
    weight_map = {n: places[n] for n in [*order, *(n for n in places if n not in set(order))]}
    files.write_json(job.result / INDEX, {"metadata": metadata, "weight_map": weight_map})


def read_order(job: Job) -> list[str]:
    """The names in the order of the input's index."""
    path = job.source / INDEX
    return list(read_json(path)["weight_map"]) if path.is_file() else []


def proved(job: Job, mode: str, tell: Tell) -> Proof:
    """Compare the function before and after, from the files."""
    observe, unknown, spec = (job.data["settings"][k] for k in ("observe", "unknown", "model"))
    graph = graph_of(job.model, observe, unknown)
    dtype = torch.float64 if mode == "full" else torch.float32
    shards, smaller = open_shards(job.result), job.smaller
    before = job.before(dtype)
    moved = job.element.moved(before)
    if smaller is None:
        stored = LazyState(shards, naming_of(shards, job.model.model, spec))
        after = State(job.gauge.plan, Untied(stored, tied_again(job)), dtype)
        return prove(Function(graph, before), Function(graph, moved), Function(graph, after), mode, tell)
    limit = (job.data["settings"]["prune"] or {}).get("tolerance") is None
    if (
        spec is not None
    ):  # nothing builds the smaller module: its tensors at their old sizes, where nothing reads what went
        held = open_shards(job.result)
        wide = padded(job, moved)
        return prove(
            Function(graph, before), Function(graph, moved, lambda n: wide(n, None)),
            Function(graph, moved, lambda n: wide(n, held)), mode, tell, strict=limit,
        )  # fmt: skip
    tell("inferring the gauge of the smaller model")
    sample = replace(skeleton(job.source, job.home / AFTER), args=job.model.args, kwargs=job.model.kwargs)
    with posing_as_cpu(sample.model):
        gauge = regauge.infer(sample.model, sample.args, sample.kwargs, observe=observe, unknown=unknown)
    small = graph_of(sample, observe, unknown)
    after = State(gauge.plan, LazyState(shards, naming_of(shards, sample.model, None)), dtype)

    def cut(name: str) -> Tensor:
        assert smaller is not None
        return smaller.tensor(moved, name) if name in smaller.tensors else moved.tensor(name)

    return prove(Function(graph, before), Function(small, moved, cut), Function(small, after), mode, tell, strict=limit)


def graph_of(sample: Sample, observe: str | None, unknown: str) -> Graph:
    """The core graph of a model."""
    with posing_as_cpu(sample.model):
        captured = capture(sample.model, sample.args, sample.kwargs, observe)
        return canonical(lower(captured, unknown).graph)


def padded(job: Job, moved: State) -> Callable[[str, Shards | None], Tensor]:
    """Reads a tensor of the result at its old size, wide and in its chart: from files, or before it is rounded."""
    smaller, names = job.smaller, {p: f for f, p in job.naming.plain.items()}
    assert smaller is not None

    def read(name: str, shards: Shards | None) -> Tensor:
        assert smaller is not None
        old = moved.tensor(name)
        if shards is None:
            return smaller.padded(name, smaller.tensor(moved, name), old) if name in smaller.tensors else old
        op = moved.params[name].op
        assert isinstance(op, Param)
        stored = shards[names[moved.names[name]]].to(moved.dtype)
        stored = op.chart.forward(stored) if op.chart.steps else stored
        return smaller.padded(name, stored, old) if name in smaller.tensors else stored

    return read


def tied_again(job: Job) -> dict[str, str]:
    """Name of the model -> the one that it is tied to in the result, though not in this job's model."""
    plain = job.naming.plain
    return {plain[n]: plain[source] for n, source in job.data["dropped"].items()}


def described(job: Job, made: dict[str, str]) -> dict[str, Any]:
    """The record without the proof: enough to do it again, or to take it back."""
    previous = job.source / RECORD
    data = job.data
    return {
        "schema": SCHEMA,
        "identity": data["identity"],
        "input": {"name": job.source.name, "files": data["settings"]["dequantised"] or hashes(job)},
        "output": {"files": made},
        "recipe": data["settings"]["recipe"],
        "settings": {k: v for k, v in data["settings"].items() if k != "recipe"},
        "compute": data["compute"],
        "versions": data["versions"],
        "dimension": job.gauge.dim,
        "bonds": [{"name": b.name, "size": b.size, "group": str(b.group), "dim": b.dim} for b in job.gauge.bonds],
        "config": data["patches"],
        "added": data["added"],
        "dropped": data["dropped"],
        "removed": removed(job),
        "previous": read_json(previous) if previous.is_file() else None,
    }


def removed(job: Job) -> list[dict[str, Any]]:
    """The units that went, and the axes that became shorter."""
    if job.smaller is None:
        return []
    return [
        {"bond": r.bond, "size": r.size, "dead": list(r.dead), "constant": list(r.constant), "merged": [list(m) for m in r.merged],
         "axes": [[a.tensor, a.axis, a.before, a.after] for a in job.smaller.axes_of(r)]}
        for r in job.smaller.removals.values()
    ]  # fmt: skip


def hashes(job: Job) -> dict[str, str]:
    """sha256 of what was read: taken while it was, or else now."""
    seen = {f.name: (record_of(job, f) or {}).get("input") for f in job.files}
    read = (job.source / "config.json", *safetensors_files(job.source))
    return {p.name: seen.get(p.name) or files.sha256(p) for p in read if p.is_file()}


def require_target(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise InputError(f"{target}: exists: name another directory, or replace it with --force")


__all__ = ["ELEMENT", "RECORD", "finish", "require_target"]
