"""`diff`: are two checkpoints one model, and by which element of the gauge group?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import regauge
from regauge.align import DERIVED, GAUGE_EQUAL, IDENTICAL, UNRELATED, Alignment, align
from regauge.check import observe as observing
from regauge.checkpoint import Opened, Sample, open_model
from regauge.errors import InputError
from regauge.graph.posing import posing_as_cpu
from regauge.jobs import packing
from regauge.jobs.source import Untied, names_of
from regauge.solve.gauge import Gauge

CODES = {IDENTICAL: 0, GAUGE_EQUAL: 3, DERIVED: 4, UNRELATED: 5}
DESCRIPTIVE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "use_cache",
               "tie_word_embeddings", "_experts_implementation", "_attn_implementation"}  # fmt: skip
SAME = 1e-5  # relative change of outputs below which two configurations make the same function of one set of weights

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Difference:
    """What `diff` found. alignment: None where the parameters of the two models do not even fit. reason: why, in words,
    where the verdict needs it. settings: entries of the configurations that differ."""

    verdict: str
    alignment: Alignment | None
    reason: str = ""
    settings: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 identical, 3 gauge-equal, 4 derived, 5 unrelated."""
        return CODES[self.verdict]

    def save(self, path: Path) -> None:
        """Write the element; `load_element` of `regauge.jobs.packing` reads it back for the same gauge."""
        assert self.alignment is not None
        beside = path.with_name(f".{path.name}.part")
        packing.save_element(self.alignment.element, beside)
        beside.replace(path)


@dataclass(frozen=True)
class Side:
    """One of the two: the model and its weights under the model's names."""

    spec: str
    opened: Opened
    sample: Sample
    state: Mapping[str, Tensor]


def diff(a: str | Path, b: str | Path, *, unknown: str = "raise", tell: Tell | None = None) -> Difference:
    """Compare two models as `open_model` names them: directories are read tensor by tensor.

    The element of the answer takes the weights of `a` to those of `b`. Where one ties tensors that the other holds apart,
    the group of the one that holds them apart is used. Raises InputError where one of them cannot be read.
    """
    say = tell or (lambda stage: None)
    say("open")
    first, second = side(str(a)), side(str(b))
    settings = differing(first.sample, second.sample)
    say("infer")
    gauge, reason = common_gauge(first, second, unknown)
    if gauge is None:
        return Difference(UNRELATED, None, reason, settings)
    found = align(gauge, first.state, second.state, progress=say)
    verdict, notes = found.verdict, tuple[str, ...]()
    if settings and verdict in (IDENTICAL, GAUGE_EQUAL):
        say("run both configurations")
        change = change_by_settings(first, second)
        words = ", ".join(f"{k}: {x} -> {y}" for k, (x, y) in settings.items())
        if change > SAME:
            verdict = DERIVED
            reason = f"the weights are {found.verdict}, but the configurations make other functions of them ({words})"
        else:
            notes = (f"the configurations differ, without effect on the example inputs: {words}",)
    if verdict == IDENTICAL and any(dtypes(first, n) != dtypes(second, n) for n in gauge.parameters):
        verdict, notes = GAUGE_EQUAL, (*notes, "the numbers are equal, their dtypes are not")
    return Difference(verdict, found, reason, settings, notes)


def side(spec: str) -> Side:
    """A model with its weights: read lazily from safetensors, otherwise loaded."""
    opened = open_model(spec)
    folder = Path(spec).expanduser()
    if opened.kind == "pretrained" and (folder / "config.json").is_file():
        from regauge.checkpoint.lazy import lazy_state

        sample = opened.skeleton()
        lazy = lazy_state(folder, sample.model)
        copies = {
            n: old for names in names_of(sample.model) for old in names if old in lazy for n in names if n not in lazy
        }
        return Side(spec, opened, sample, Untied(lazy, copies))
    sample = opened.loaded()
    return Side(spec, opened, sample, sample.model.state_dict())


def dtypes(side: Side, name: str) -> torch.dtype | None:
    return side.state[name].dtype if name in side.state else None


def common_gauge(a: Side, b: Side, unknown: str) -> tuple[Gauge | None, str]:
    """The gauge of the one with more free tensors, if the other's state has them all; or why there is none."""
    shapes_a, shapes_b = shapes(a.sample.model), shapes(b.sample.model)
    for s, mine, other in ((a, shapes_a, shapes_b), (b, shapes_b, shapes_a)):
        if set(other) <= set(mine) and all(mine[n] == other[n] for n in other):
            with posing_as_cpu(s.sample.model):
                gauge = regauge.infer(s.sample.model, s.sample.args, s.sample.kwargs, unknown=unknown)
            return gauge, ""
    lost = [n for n in shapes_a if n not in shapes_b] or [n for n in shapes_b if n not in shapes_a]
    if lost:
        return None, f"one of them has no tensor {lost[0]} ({len(lost)} such): two architectures"
    name = next(n for n in shapes_a if shapes_a[n] != shapes_b[n])
    return None, f"{name} is {list(shapes_a[name])} in one and {list(shapes_b[name])} in the other"


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Parameters by their first name: tied ones once."""
    return {n: tuple(p.shape) for n, p in model.named_parameters()}


def differing(a: Sample, b: Sample) -> dict[str, tuple[Any, Any]]:
    """Entries of the configurations that differ and may matter."""
    first, second = flat(config(a)), flat(config(b))
    return {
        k: (first.get(k), second.get(k))
        for k in sorted({*first, *second})
        if first.get(k) != second.get(k) and not DESCRIPTIVE & set(k.split("."))
    }


def config(sample: Sample) -> dict[str, Any]:
    held: Any = getattr(sample.model, "config", None)
    return dict(held.to_dict()) if hasattr(held, "to_dict") else {}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for k, v in config.items():
        out.update(flat(v, f"{prefix}{k}.") if isinstance(v, Mapping) else {f"{prefix}{k}": v})
    return out


@torch.no_grad()
def change_by_settings(a: Side, b: Side) -> float:
    """Relative change of the outputs when the weights of `a` are read by the configuration of `b`."""
    mine, other = a.opened.loaded(), b.opened.loaded()
    weights = mine.model.state_dict()
    if any(n not in weights or weights[n].shape != p.shape for n, p in other.model.state_dict().items()):
        return float("inf")
    other.model.to(dtype=next(mine.model.parameters()).dtype).load_state_dict(weights, strict=False)
    x, y = (observing.run(m, mine.args, mine.kwargs, None) for m in (mine.model, other.model))
    if x.keys() != y.keys() or any(x[k].shape != y[k].shape for k in x):
        return float("inf")
    return max(float((x[k] - y[k]).abs().max() / x[k].abs().max().clamp_min(1e-30)) for k in x)


def refuse_to_replace(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise InputError(f"{path}: exists: name another file with --out, or replace it with --force")
