"""SmolLM2 with an output head of its own, to compare with the tied original:

    regauge inspect examples.untied:smollm2

The values are those of the original, so the function is the same; only the tie is gone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import nn

from regauge.checkpoint import Sample, open_model

MODEL = Path(sys.prefix) / "models" / "smollm2"


def untied(sample: Sample) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The sample's model with a copy of the embedding as its head."""
    head = sample.model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone())
    sample.model.config.tie_word_embeddings = False
    return sample.model, sample.args, sample.kwargs


def smollm2() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    return untied(open_model(str(MODEL)).loaded())


def small() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    opened = open_model(str(MODEL))
    assert opened.small is not None
    return untied(opened.small())


smollm2.small = small  # type: ignore[attr-defined]
