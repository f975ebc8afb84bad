"""`infer`: from a model to its gauge group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from regauge.errors import InputError
from regauge.graph.canonical import canonical
from regauge.graph.capture import Captured, Observe, capture
from regauge.rules.lower import lower
from regauge.solve.gauge import Gauge
from regauge.solve.passes import solve

Progress = Callable[[str], None]


def infer(
    model: nn.Module | torch.export.ExportedProgram,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    observe: Observe = None,
    unknown: str = "raise",
    progress: Progress | None = None,
) -> Gauge:
    """The gauge group of a model, from its traced graph; weights are not read.

    model: on any device, meta included; or an exported program. args, kwargs: example inputs as for torch.export.
    observe: what must not change; None: every tensor that the model returns; "logits", "probabilities", or a callable on
    the output. unknown: "raise" lists every operator without a rule in an UnknownOperatorError; "freeze" keeps fixed what
    touches them, and says so in `gauge.frozen`. progress: called with the name of each stage.

    Raises TraceError where torch.export cannot follow the model.
    """
    if unknown not in ("raise", "freeze"):
        raise InputError(f"unknown={unknown!r}: expected 'raise' or 'freeze'")
    say = progress or (lambda stage: None)
    say("trace")
    captured = capture(model, args, kwargs, observe)
    return infer_captured(captured, observe if isinstance(observe, str) else None, unknown, say)


def infer_captured(
    captured: Captured, observe: str | None = None, unknown: str = "raise", progress: Progress | None = None
) -> Gauge:
    """The gauge group of a model that was traced before."""
    say = progress or (lambda stage: None)
    say("rules")
    lowered = lower(captured, unknown)
    say("solve")
    graph = canonical(lowered.graph)
    plan = solve(graph, captured.aliases)
    frozen = tuple(f"{m.operator} ({m.count}x, first {m.source})" for m in lowered.frozen)
    return Gauge(plan, observe, frozen)
