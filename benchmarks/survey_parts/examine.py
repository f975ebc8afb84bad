"""Everything the survey asks of one subject, as a plain record."""

from __future__ import annotations

import contextlib
import logging
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from regauge.errors import UnknownOperatorError

from .build import Subject, build_causal
from .trace import live_nodes, parameter_operators, trace

UNSOUND = 1e-7  # relative change of the output in float64, upcasts lifted
SMALL = {"width": 8, "vocabulary": 13}  # the copy whose Jacobian is factorised
LARGEST = 4500  # parameters of such a copy


def examine(kind: str, name: str, stages: frozenset[str]) -> dict[str, Any]:
    """Stages: trace, infer (with soundness), tight. A stage that fails is recorded and ends the record."""
    _quiet()
    build = builder(kind)
    record: dict[str, Any] = {"name": name, "kind": kind}
    with _recording(record, "build"):
        subject = build(name)
        record["parameters"] = sum(p.numel() for p in subject.model.parameters())
    if "error" not in record and "trace" in stages:
        with _recording(record, "trace"):
            traced = trace(subject)
            record |= {
                "trace_seconds": round(traced.seconds, 2),
                "patched": traced.patched,
                "nodes": len(live_nodes(traced.program)),
                "operators": dict(parameter_operators(traced.program)),
            }
    if "error" not in record and "infer" in stages:
        with _recording(record, "infer"):
            record |= infer(subject, record.get("patched", False))
    if "error" not in record and "tight" in stages and "dim" in record:
        with _recording(record, "tight"):
            record |= tighten(kind, name, record)
    return record


def builder(kind: str) -> Callable[..., Subject]:
    if kind == "causal":
        return build_causal
    if kind == "other":
        from .others import build_other

        return build_other
    from .plain import build_plain

    return build_plain


def infer(subject: Subject, patched: bool) -> dict[str, Any]:
    """Compile and test: the dimension, what it is made of, what breaks the largest break, and the soundness."""
    import regauge

    from .prove import unsoundness

    with _clock() as tracing, _patches(patched):
        start = time.perf_counter()
        gauge = regauge.infer(subject.model, subject.args, subject.kwargs)
        total = time.perf_counter() - start
    error = unsoundness(subject, gauge)
    obstructions = [{"text": o.text, "source": o.source, "cost": o.cost} for o in gauge.obstructions[:5]]
    return {
        "dim": gauge.dim,
        "bonds": len(gauge.bonds),
        "frozen": list(gauge.frozen),
        "infer_seconds": round(total - sum(tracing), 2),
        "unsoundness": error,
        "sound": error < UNSOUND,
        "obstructions": obstructions,
        "terms": [{"label": t.label, "dim": t.dim} for t in gauge.terms],
    }


def tighten(kind: str, name: str, record: dict[str, Any]) -> dict[str, Any]:
    """Dimension against nullity on a copy small enough to factorise its Jacobian."""
    import regauge

    from .prove import nullity

    subject = builder(kind)(name) if kind == "plain" else builder(kind)(name, **SMALL)
    count = sum(p.numel() for p in subject.model.parameters())
    if count > LARGEST:
        return {"tight": None, "why_not": f"the small copy has {count} parameters"}
    with _patches(record.get("patched", False)):
        gauge = regauge.infer(subject.model, subject.args, subject.kwargs)
    null, cut = nullity(subject)
    return {"tight": gauge.dim == null, "small_dim": gauge.dim, "nullity": null, "cut": cut, "gap": null - gauge.dim}


@contextlib.contextmanager
def _recording(record: dict[str, Any], stage: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        record["stage"], record["error"] = stage, f"{type(error).__name__}: {error}"[:3000]
        missing = re.findall(r"^ +(\S+): \d+ times?, first", str(error), re.MULTILINE)
        if isinstance(error, UnknownOperatorError) and missing:
            record["missing"] = missing
        record["where"] = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"


@contextlib.contextmanager
def _clock() -> Iterator[list[float]]:
    """Seconds spent in torch.export inside the block."""
    spent: list[float] = []

    def timed(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                spent.append(time.perf_counter() - start)

        return call

    program = torch.export.ExportedProgram
    with (
        mock.patch.object(torch.export, "export", timed(torch.export.export)),
        mock.patch.object(program, "run_decompositions", timed(program.run_decompositions)),
    ):
        yield spent


@contextlib.contextmanager
def _patches(needed: bool) -> Iterator[None]:
    from .trace import export_patches

    with export_patches() if needed else contextlib.nullcontext():
        yield


def _quiet() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
