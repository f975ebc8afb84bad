"""`regauge inspect`: infer and describe, without weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import regauge
from regauge.act import strata
from regauge.checkpoint import Sample, open_model
from regauge.cli.progress import Progress, peak_memory_bytes
from regauge.graph.posing import posing_as_cpu
from regauge.report import SCHEMA, describe, near_strata, page

EVERYTHING = "every tensor that the model returns"


def inspect(
    spec: str, observe: str | None, unknown: str, *, quiet: bool, at_weights: bool = False, near: float = 1e-3
) -> dict[str, Any]:
    """The result as plain data. at_weights: also where the weights sit at or near (within `near`) a larger group."""
    progress = Progress(quiet)
    with progress.stage("build", "building the model without weights"):
        sample = open_model(spec).skeleton()
    with progress.stage("infer", "tracing and inferring") as tell, posing_as_cpu(sample.model):
        gauge = regauge.infer(sample.model, sample.args, sample.kwargs, observe=observe, unknown=unknown, progress=tell)
    with progress.stage("explain", "asking what breaks the rest"):
        described = describe(gauge)
    result = {**summary("inspect", spec, sample, observe, progress), "gauge": described}
    if at_weights:
        with progress.stage("weights", "reading the weights"):
            state = open_model(spec).loaded().model.state_dict()
        with progress.stage("strata", "looking for units that coincide or sleep, and for lost rank"):
            result["strata"] = near_strata(strata(gauge, state, near=near), near)
    return result


def summary(command: str, spec: str, sample: Sample, observe: str | None, progress: Progress) -> dict[str, Any]:
    """The part of a result that every command shares."""
    return {
        "schema": SCHEMA,
        "command": command,
        "model": {"spec": spec, "class": type(sample.model).__name__, "parameters": count_parameters(sample.model)},
        "observe": observe or EVERYTHING,
        "notes": list(sample.notes),
        "seconds": progress.seconds,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def count_parameters(model: Any) -> int:
    """Tied parameters count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def write_page(path: Path, result: dict[str, Any]) -> None:
    """Write beside the target, then rename: never a half page."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(page(result["model"]["spec"], result["gauge"]), encoding="utf-8")
    beside.replace(path)
