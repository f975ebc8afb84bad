"""Everything the survey asks of one subject, as a plain record."""

from __future__ import annotations

import contextlib
import logging
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import torch

from regauge.errors import UnknownOperatorError

from .build import Subject, build_causal
from .trace import Traced, live_nodes, parameter_operators, sizes_depend_on_data, trace

UNSOUND = 1e-7  # relative change of the output in float64, upcasts lifted
SMALL = {"width": 8, "vocabulary": 19, "experts": 3}  # the copy whose Jacobian is factorised
MANY_TOKENS = (83, 251)  # tokens of the copies that follow it
ENOUGH = 2000  # parameters beyond which such a copy has one layer of each kind instead of two
LARGEST = 10_000  # parameters that are read beyond which its Jacobian is not factorised: 25 s and 2.5 GB at 8,000


def examine(kind: str, name: str, stages: frozenset[str], known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Stages: trace, infer (with soundness), tight (on copies of its own). A stage that fails is recorded and ends the
    record. `known`: a record whose stages stand."""
    _quiet()
    build = builder(kind)
    record: dict[str, Any] = {"name": name, "kind": kind} | (known or {})
    if stages - {"tight"} and not ("nodes" in record and ("dim" in record or "infer" not in stages)):
        with _recording(record, "build"):
            subject = build(name)
            record["parameters"] = size(subject)
            if kind == "other":
                record["inputs"] = sorted(subject.kwargs)
        if "error" not in record:
            _trace_and_infer(record, subject, stages)
    if (
        "error" not in record
        and "tight" in stages
        and "tight" not in record
        and ("dim" in record or "infer" not in stages)
    ):
        for patched in (record["patched"],) if "patched" in record else (False, True):
            for key in ("error", "stage", "where"):
                record.pop(key, None)
            with _recording(record, "tight"), _patches(patched):
                tighten(kind, name, record, patched)
            if "error" not in record:
                break
    return record


def _trace_and_infer(record: dict[str, Any], subject: Subject, stages: frozenset[str]) -> None:
    """One trace serves both stages."""
    traced: list[Traced] = []
    if "infer" not in stages:
        with _recording(record, "trace"):
            traced.append(trace(subject))
    for patched in (False, True) if "infer" in stages else ():
        for key in ("error", "stage", "where"):
            record.pop(key, None)
        with _recording(record, "infer"), _clock(patched) as traced, _patches(patched):
            record |= infer(subject, traced)[1]
        if "error" not in record or (traced and not sizes_depend_on_data(traced[-1].program)):
            break
        record["stage"] = "trace"
    if traced and not sizes_depend_on_data(traced[-1].program):
        record |= described(traced[-1])


def described(traced: Traced) -> dict[str, Any]:
    return {
        "trace_seconds": round(traced.seconds, 2),
        "patched": traced.patched,
        "nodes": len(live_nodes(traced.program)),
        "operators": dict(parameter_operators(traced.program)),
    }


def builder(kind: str) -> Callable[..., Subject]:
    if kind == "causal":
        return build_causal
    if kind == "other":
        from .others import build_other

        return build_other
    from .plain import build_plain

    return build_plain


def infer(subject: Subject, traced: list[Traced]) -> tuple[Any, dict[str, Any]]:
    """Compile and test: the gauge, with its dimension, what it is made of, what breaks the rest, and the soundness."""
    import regauge

    from .prove import unsoundness

    start = time.process_time()
    gauge = regauge.infer(subject.model, subject.args, subject.kwargs)
    seconds = time.process_time() - start - traced[-1].seconds
    error = unsoundness(subject, gauge)
    obstructions = [{"text": o.text, "source": o.source, "cost": o.cost} for o in gauge.obstructions[:5]]
    return gauge, {
        "dim": gauge.dim,
        "bonds": len(gauge.bonds),
        "frozen": list(gauge.frozen),
        "infer_seconds": round(seconds, 2),
        "unsoundness": error,
        "sound": error < UNSOUND,
        "obstructions": obstructions,
        "terms": [{"label": t.label, "dim": t.dim} for t in gauge.terms],
    }


def tighten(kind: str, name: str, record: dict[str, Any], patched: bool) -> None:
    """Dimension against nullity on a copy small enough to factorise its Jacobian; without the other stages, the record
    is that copy's.

    Where they differ, copies with more tokens have the last word, as long as each brings the two closer: what reads tokens
    alone sees as many inputs as there are tokens, and few inputs leave many directions without effect. A nullity is a fact
    about the model, which no version of the compiler changes: those in the record's ``copies`` stand for copies with the
    same values.
    """
    copies, known = [], record.get("copies", ())
    gaps: list[int] = []
    for subject in small_copies(kind, name):
        if gaps[1:] and gaps[-1] >= gaps[-2]:
            break
        copy = measured(subject, known)
        copies.append(copy)
        with _clock(patched) as traced:
            gauge, facts = infer(subject, traced)
        if "dim" not in record:
            record |= {"parameters": size(subject)} | facts | described(traced[-1])
        record["unsoundness"] = max(record["unsoundness"], facts["unsoundness"])
        record |= {"copies": copies, "sound": record["unsoundness"] < UNSOUND, "tight": record.get("tight")}
        if "nullity" not in copy:
            record.setdefault("why_not", f"the small copy reads {copy['small']} parameters")
            continue
        null = copy["nullity"] + sum(n for k, n in copy["unread"].items() if k in gauge.parameters)
        record |= {
            "small": copy["small"],
            "tight": gauge.dim == null,
            "small_dim": gauge.dim,
            "nullity": null,
            "gap": null - gauge.dim,
        }
        gaps.append(null - gauge.dim)
        if record["tight"] or not record["sound"]:
            break


def measured(subject: Subject, known: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The nullity of a copy, measured if it is not known."""
    from .nullity import nullity
    from .version import subject_digest

    digest = subject_digest(subject)
    copy = next((k for k in known if k["subject"] == digest), None)
    if copy is not None:
        return copy
    found = nullity(subject, LARGEST)
    numbers = {} if found.directions is None else {"nullity": found.directions, "cut": found.gap}
    return {"subject": digest, "small": found.columns, "unread": dict(found.unread)} | numbers


def small_copies(kind: str, name: str) -> Iterator[Subject]:
    if kind == "plain":
        yield builder(kind)(name)
        return
    yield small_copy(kind, name, ENOUGH, SMALL)
    for tokens in MANY_TOKENS:
        yield small_copy(kind, name, 0, SMALL | {"vocabulary": tokens})


def small_copy(kind: str, name: str, enough: int, sizes: dict[str, int]) -> Subject:
    """Two layers, or one of each kind where that is larger than `enough`, unless the type cannot have one alone."""
    subject = builder(kind)(name, **sizes)
    if size(subject) <= enough:
        return subject
    try:
        return builder(kind)(name, **sizes, layers=1)
    except ArithmeticError:
        return subject


def size(subject: Subject) -> int:
    return sum(p.numel() for p in subject.model.parameters())


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
def _clock(patched: bool) -> Iterator[list[Traced]]:
    """The programs that torch.export makes inside the block, with the seconds that each took."""
    made: list[Traced] = []
    export, decompose = torch.export.export, torch.export.ExportedProgram.run_decompositions
    seconds = 0.0

    def timed(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal seconds
            start = time.process_time()
            program = original(*args, **kwargs)
            seconds += time.process_time() - start
            if original is decompose:
                made.append(Traced(program, seconds, patched))
                seconds = 0.0
            return program

        return call

    with (
        mock.patch.object(torch.export, "export", timed(export)),
        mock.patch.object(torch.export.ExportedProgram, "run_decompositions", timed(decompose)),
    ):
        yield made


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
