"""`regauge verify`: the two-sided proof on the real weights."""

from __future__ import annotations

from typing import Any

import regauge
from regauge.check import Tightness
from regauge.check.sound import MARGIN
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
    with progress.stage("infer", "tracing and inferring") as tell:
        gauge = regauge.infer(sample.model, sample.args, sample.kwargs, observe=observe, unknown=unknown, progress=tell)
    described, notes = describe(gauge), list(sample.notes)
    sound, broken = soundness(sample, gauge, observe, seed, progress)
    tight, missed = tightness(opened, sample, observe, unknown, progress)
    result = summary("verify", spec, sample, observe, progress)
    return {
        **result,
        "notes": notes,
        "gauge": described,
        "checks": {**sound, "tight": tight},
        "details": [*broken, *missed],
        "proved": not broken and (tight is None or tight["ok"]),
    }


def soundness(
    sample: Sample, gauge: Any, observe: str | None, seed: int, progress: Progress
) -> tuple[dict[str, Any], list[str]]:
    """One finite element of the whole group, in double and in the checkpoint's own dtype, beside a random move of the
    same size that is no symmetry; and what to tell a person where one of them fails."""
    with progress.stage("sound", "checking on the weights that the function does not change") as tell:
        found = regauge.check.sound(
            sample.model, sample.args, gauge, sample.kwargs, observe=observe, seeds=(seed,), progress=tell
        )
    limit = MARGIN * found.floor
    native = {"dtype": found.dtype, "error": found.native, "floor": found.floor, "limit": limit}
    double = {"dtype": "float64", "error": found.error, "floor": None, "limit": found.rtol}
    return {
        "sound": [{**native, "ok": found.native <= limit}, {**double, "ok": found.error <= found.rtol}],
        "control": {"error": found.control, "moved": found.moved, "ok": found.sensitive},
    }, [] if found.ok else str(found).splitlines()


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
    try:
        with progress.stage("tight", "measuring on a small copy that no direction is missed"):
            gauge = regauge.infer(sample.model, sample.args, sample.kwargs, observe=observe, unknown=unknown)
            found = measured(sample, gauge, observe)
    except RuntimeError as error:
        if "autograd" not in str(error):
            raise
        return None, [f"tight: not checked: the model has no derivative ({str(error).splitlines()[0]})"]
    view = {
        "dim": found.dim,
        "nullity": found.nullity,
        "gap": found.gap,
        "parameters": found.parameters,
        "ok": found.ok,
    }
    return view, [] if found.ok else str(found).splitlines()


def measured(sample: Sample, gauge: Any, observe: str | None) -> Tightness:
    """At one random point; a unit that is dead there adds directions, so if there are more, at two others."""
    tight = regauge.check.tight
    found = tight(sample.model, sample.args, gauge, sample.kwargs, observe=observe, seeds=(0,))
    if found.gap <= 0:
        return found
    return tight(sample.model, sample.args, gauge, sample.kwargs, observe=observe, seeds=(1, 2))
