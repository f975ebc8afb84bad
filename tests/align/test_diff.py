"""`regauge diff` on directories: verdicts, exit codes, the file with the transformation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

import regauge  # noqa: E402
from regauge.checkpoint import open_model  # noqa: E402
from regauge.cli.app import run  # noqa: E402
from regauge.jobs import packing  # noqa: E402
from tests.align.changes import quantised  # noqa: E402
from tests.align.families import build  # noqa: E402


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build("llama")[0].save_pretrained(folder)
    return folder


def rewritten(base: Path, folder: Path, change: object, **settings: object) -> Path:
    """A copy of the checkpoint with its state changed, and entries of its configuration."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    state = load_file(folder / "model.safetensors")
    save_file(change(state), folder / "model.safetensors", {"format": "pt"})  # type: ignore[operator]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
    return folder


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict]:
    code = run(["diff", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_another_gauge_is_found_and_written(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = open_model(str(base)).loaded()
    gauge = regauge.infer(sample.model, sample.args, sample.kwargs)
    g = gauge.sample(7)
    moved = rewritten(base, tmp_path / "moved", lambda s: {k: v.contiguous() for k, v in g.apply(s).items()})
    code, found = asked(capsys, base, moved, "--out", tmp_path / "g.safetensors")
    assert (code, found["verdict"]) == (3, "gauge-equal")
    assert found["residual"] < 1e-6 and found["element"] == str(tmp_path / "g.safetensors")
    element = packing.load_element(tmp_path / "g.safetensors", gauge.plan)
    state = {k: v.double() for k, v in sample.model.state_dict().items()}
    image, wanted = element.apply(state), g.apply(state)
    assert all(float((image[k] - wanted[k]).norm()) <= 1e-6 * float(wanted[k].norm()) for k in state)
    assert run(["diff", str(base), str(moved), "--out", str(tmp_path / "g.safetensors")]) == 2
    assert "exists" in capsys.readouterr().err


def test_verdicts_and_exit_codes(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = rewritten(base, tmp_path / "same", lambda s: s)
    assert asked(capsys, base, same)[0] == 0
    small = rewritten(base, tmp_path / "small", quantised)
    code, found = asked(capsys, base, small)
    assert code == 4 and found["bonds"] and all(b["delta"] > 0 for b in found["bonds"])
    other = tmp_path / "other"
    build("llama", seed=9)[0].save_pretrained(other)
    code, found = asked(capsys, base, other)
    assert code == 5 and found["element"] is None
    assert found["residual"] is None and not found["parameters"] and found["similarity"] < 0.5
    assert run(["diff", str(base), str(other)]) == 5
    out = capsys.readouterr().out
    assert "|g.A - B|" not in out and "mean cosine" in out
    build("gpt2")[0].save_pretrained(tmp_path / "another")
    code, found = asked(capsys, base, tmp_path / "another")
    assert code == 5 and "two architectures" in found["reason"]


def test_equal_weights_under_another_configuration_are_another_function(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}
    turned = rewritten(base, tmp_path / "turned", lambda s: s, **slow)
    code, found = asked(capsys, base, turned)
    assert code == 4 and "rope_theta" in found["reason"]
    noted = rewritten(base, tmp_path / "noted", lambda s: s, max_position_embeddings=25)
    code, found = asked(capsys, base, noted)
    assert code == 0 and "max_position_embeddings" in found["notes"][0]


def test_a_tie_that_was_lifted_is_no_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tied = tmp_path / "tied"
    build("llama-tied")[0].save_pretrained(tied)
    steps = ["--untie", "--fold", "--rotate", "orthogonal", "--verify", "none"]
    assert run(["apply", str(tied), str(tmp_path / "turned"), *steps]) == 0
    capsys.readouterr()
    code, found = asked(capsys, tied, tmp_path / "turned", "--out", tmp_path / "g.safetensors")
    assert (code, found["verdict"]) == (3, "gauge-equal")


def test_a_person_reads_one_line_of_verdict(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    near = rewritten(base, tmp_path / "near", lambda s: {k: v + 1e-3 * torch.randn(v.shape) for k, v in s.items()})
    assert run(["diff", str(base), str(near)]) == 4
    out = capsys.readouterr().out
    assert "derived" in out and "rank" in out and "Traceback" not in out
