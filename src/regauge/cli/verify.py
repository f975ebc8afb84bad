"""`regauge verify`: the two-sided proof on the real weights."""

from __future__ import annotations

from typing import Any

import torch

import regauge
from regauge.checkpoint import Opened, Sample, open_model
from regauge.cli.inspect import count_parameters, summary
from regauge.cli.progress import Progress
from regauge.errors import InputError
from regauge.report import describe

TIGHT_LIMIT = 8_000  # parameters; the null space of the Jacobian costs their cube


def verify(spec: str, observe: str | None, unknown: str, *, seed: int, quiet: bool) -> dict[str, Any]:
    """The result as plain data; `proved` says whether every check that could be made holds."""
    progress = Progress(quiet)
    opened = open_model(spec)
    with progress.stage("load", "loading the weights"):
        sample = opened.loaded()
    with progress.stage("infer", "tracing and inferring"):
        gauge = regauge.infer(sample.model, sample.args, sample.kwargs, observe=observe, unknown=unknown)
    described, notes = describe(gauge), list(sample.notes)
    tight, details = tightness(opened, sample, observe, unknown, progress)
    sound = [soundness(sample, gauge, observe, seed, dtype, progress) for dtype in dtypes(sample.model)]
    result = summary("verify", spec, sample, observe, progress)
    return {
        **result,
        "notes": notes,
        "gauge": described,
        "checks": {"sound": sound, "tight": tight},
        "details": details,
        "proved": all(check["ok"] for check in sound) and (tight is None or tight["ok"]),
    }


def dtypes(model: Any) -> list[torch.dtype]:
    """The checkpoint's own, then double."""
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return list(dict.fromkeys([own, torch.float64]))


def soundness(
    sample: Sample, gauge: Any, observe: str | None, seed: int, dtype: torch.dtype, progress: Progress
) -> dict[str, Any]:
    """One finite element of the whole group, tried in `dtype`; the model is moved there."""
    name = str(dtype).removeprefix("torch.")
    with progress.stage(f"sound in {name}", f"checking in {name} that the function does not change"):
        model = sample.model.to(dtype)
        args, kwargs = cast(sample.args, dtype), cast(sample.kwargs, dtype)
        found = regauge.check.sound(model, args, gauge, kwargs, observe=observe, seed=seed)
    return {"dtype": name, "error": found.error, "floor": found.floor, "limit": found.limit, "ok": found.ok}


def tightness(
    opened: Opened, sample: Sample, observe: str | None, unknown: str, progress: Progress
) -> tuple[dict[str, Any] | None, list[str]]:
    """The proof on a small copy (or the model itself, if it is small), and what to tell a person where it fails."""
    if opened.small is not None:
        try:
            with progress.stage("shrink", "building a small copy"):
                sample = opened.small()
        except InputError as error:
            return None, [f"tight: not checked: {error}"]
    elif count_parameters(sample.model) > TIGHT_LIMIT:
        return None, [f"tight: not checked: {opened.spec} is large, and has no small copy: give a factory with one"]
    with progress.stage("tight", "measuring on a small copy that no direction is missed"):
        gauge = regauge.infer(sample.model, sample.args, sample.kwargs, observe=observe, unknown=unknown)
        found = regauge.check.tight(sample.model, sample.args, gauge, sample.kwargs, observe=observe, seeds=(0,))
        if found.gap > 0:  # a unit that is dead at one point adds directions there: look at others
            found = regauge.check.tight(sample.model, sample.args, gauge, sample.kwargs, observe=observe, seeds=(1, 2))
    view = {
        "dim": found.dim,
        "nullity": found.nullity,
        "gap": found.gap,
        "parameters": found.parameters,
        "ok": found.ok,
    }
    return view, [] if found.ok else str(found).splitlines()


def cast(value: Any, dtype: torch.dtype) -> Any:
    """The floating tensors of nested inputs in another dtype."""
    match value:
        case torch.Tensor():
            return value.to(dtype) if value.is_floating_point() else value
        case dict():
            return {key: cast(item, dtype) for key, item in value.items()}
        case tuple() | list():
            return type(value)(cast(item, dtype) for item in value)
        case _:
            return value
