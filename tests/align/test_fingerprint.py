"""Sketches: equal in every gauge, near after training, far for other models; of fixed length; made while reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

import regauge  # noqa: E402
from regauge.align import Sketch, sketch, stream  # noqa: E402
from regauge.align.sketch import NEAR, RELATED  # noqa: E402
from regauge.cli.app import run  # noqa: E402
from regauge.jobs.fingerprint import SIZE, prepared, read_fingerprint, shortened  # noqa: E402
from tests.align.changes import merged, quantised, stored, trained  # noqa: E402
from tests.align.families import FAMILIES, build, inputs  # noqa: E402


@pytest.mark.parametrize("name", [n if n == "llama" else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES])
def test_gauges_agree_relatives_are_near_and_strangers_far(name: str) -> None:
    model, _ = build(name)
    gauge = regauge.infer(model, (), shortened(inputs(name)))
    state = model.state_dict()

    def of(s: Mapping[str, Tensor]) -> Sketch:
        return sketch(gauge, s, name)

    base, g = of(state), gauge.sample(2)
    assert base.similarity(of(g.apply(state))) > 1 - 1e-5
    assert base.similarity(of(g.apply(stored(state, torch.bfloat16)))) > NEAR
    one = trained(name)
    for near in (one, merged(one, trained(name, seed=50)), quantised(state)):
        assert base.similarity(of(g.apply(near))) > RELATED
    for seed in (5, 6, 7):
        assert base.similarity(of(build(name, seed)[0].state_dict())) < RELATED


@pytest.mark.parametrize("native", [frozenset(), frozenset({torch.bfloat16})])
@pytest.mark.parametrize("name", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_pieces_and_dtypes_give_one_sketch(name: str, native: frozenset[torch.dtype], monkeypatch) -> None:
    model, _ = build(name)
    gauge = regauge.infer(model, (), shortened(inputs(name)))
    state = model.state_dict()
    whole = sketch(gauge, state, name)
    monkeypatch.setattr(stream, "LARGE", 0)
    monkeypatch.setattr(stream, "PIECE", 100)
    monkeypatch.setattr(stream, "native", lambda: native)
    assert whole.similarity(sketch(gauge, state, name)) > 1 - 1e-6
    assert whole.similarity(sketch(gauge, stored(state, torch.bfloat16), name)) > 0.999
    moved = gauge.sample(2).apply(state)
    assert whole.similarity(sketch(gauge, stored(moved, torch.bfloat16), name)) > NEAR


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = build("llama")
    model.save_pretrained(tmp_path / "a")
    other, _ = build("llama", seed=9)
    other.save_pretrained(tmp_path / "c")
    assert run(["apply", str(tmp_path / "a"), str(tmp_path / "b"), "--random", "3", "--verify", "none"]) == 0
    files = [str(tmp_path / f"{n}.sketch") for n in "abc"]
    for n, file in zip("abc", files, strict=True):
        assert run(["fingerprint", str(tmp_path / n), "--out", file]) == 0
        assert Path(file).stat().st_size == SIZE <= 64_000
    capsys.readouterr()
    assert run(["match", *files, "--json"]) == 0
    pairs = json.loads(capsys.readouterr().out)["pairs"]
    assert [Path(x).name for x in (pairs[0]["a"], pairs[0]["b"])] == ["a.sketch", "b.sketch"]
    assert [p["verdict"] for p in pairs] == ["near", "unrelated", "unrelated"]
    assert run(["match", *files]) == 0
    assert run(["fingerprint", str(tmp_path / "a"), "--out", files[0]]) == 2
    Path(files[0]).write_bytes(b"something else")
    assert run(["match", *files]) == 2
    assert "no sketch" in capsys.readouterr().err


def test_tensors_are_read_once_and_let_go(tmp_path: Path) -> None:
    from regauge.jobs.diff import side

    build("llama")[0].save_pretrained(tmp_path)
    found = side(str(tmp_path))
    gauge, _ = prepared(found)
    read: list[str] = []

    class Counted(Mapping[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            read.append(name)
            return found.state[name]

        def __contains__(self, name: object) -> bool:
            return name in found.state

        def __iter__(self):
            return iter(found.state)

        def __len__(self) -> int:
            return len(found.state)

    sketch(gauge, Counted(), "")
    assert sorted(read) == sorted(set(read)) and set(read) == set(gauge.parameters)


def test_sketches_of_other_inputs_do_not_compare(tmp_path: Path) -> None:
    for n in ("llama", "gpt2"):
        build(n)[0].save_pretrained(tmp_path / n)
        assert run(["fingerprint", str(tmp_path / n), "--out", str(tmp_path / f"{n}.sketch")]) == 0
    a, b = (read_fingerprint(tmp_path / f"{n}.sketch") for n in ("llama", "gpt2"))
    assert a.similarity(b) == 0.0
