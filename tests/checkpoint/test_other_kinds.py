"""Factories and exported programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from regauge.checkpoint import open_model
from regauge.errors import InputError

GOOD = """
import torch
from torch import nn

def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(5, 3)

def small():
    return nn.Linear(3, 2), (torch.ones(5, 3),), {}

mlp.small = small
no_inputs = lambda: nn.Linear(1, 1)
number = 3
def fails(): raise ValueError("on purpose")
def nan():
    model = nn.Linear(2, 2)
    nn.init.constant_(model.bias, float("nan"))
    return model, torch.ones(1, 2)
class Box:
    model = staticmethod(mlp)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"made_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize("path", ["mlp", "Box.model"])
def test_factory(module: str, path: str) -> None:
    opened = open_model(f"{module}:{path}")
    sample = opened.loaded()
    assert sample.model(*sample.args).shape == (5, 2)
    assert opened.small is not None
    assert isinstance(opened.small().model, nn.Linear)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("absent", "has no attribute absent"),
        ("no_inputs", "without example inputs"),
        ("number", "not a function"),
        ("fails", "ValueError: on purpose"),
        ("nan", "bias has 2 of 2 numbers NaN"),
    ],
)
def test_bad_factory(module: str, path: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_model(f"{module}:{path}").loaded()


def test_absent_module() -> None:
    with pytest.raises(InputError, match="there is no module no_such_module_here"):
        open_model("no_such_module_here:build")


def test_module_that_fails_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaks_on_import.py").write_text("import no_such_dependency_here")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match="no_such_dependency_here"):
        open_model("breaks_on_import:build")


def test_program(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).eval(), torch.randn(5, 3)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    sample = open_model(str(tmp_path / "model.pt2")).loaded()
    assert torch.equal(sample.model(*sample.args), model(x))
    assert set(sample.model.state_dict()) == set(model.state_dict())


def test_program_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(InputError, match="no exported program"):
        open_model(str(tmp_path / "model.pt2")).loaded()


def test_other_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(InputError, match="does not read .onnx files"):
        open_model(str(tmp_path / "model.onnx"))
