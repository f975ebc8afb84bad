"""A checkpoint in another gauge: transformers loads it unchanged and computes the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from models import contents, error, outputs, save, tensors
from torch import Tensor

from regauge.act.orders import sorted_orders
from regauge.errors import CheckError, InputError
from regauge.jobs.apply import apply, carry_out
from regauge.jobs.job import Settings
from regauge.jobs.recipes import from_options
from regauge.jobs.source import Patch, patch_ties, patched
from regauge.jobs.undo import undo
from regauge.solve.element import Element
from regauge.solve.gauge import Gauge
from regauge.solve.state import State

RANDOM = [{"random": {"seed": 0}}]
# rotary and gated; joined experts; packed rows; two norms and biases; fused projections
KINDS = [
    "llama",
    *(pytest.param(k, marks=pytest.mark.slow) for k in ("qwen3_moe", "gpt_neox", "bert", "phi3", "gpt2", "t5")),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_element_and_back(kind: str, tmp_path: Path) -> None:
    a, b, c = (tmp_path / n for n in "abc")
    save(kind, a)
    record = apply(a, b, ["untie", *RANDOM] if kind in ("bert", "gpt2") else RANDOM)
    assert record is not None and record["verify"]["ok"] and record["verify"]["exact"]["error"] < 1e-12
    assert error(outputs(a), outputs(b)) < 1e-5
    old, new = tensors(a), tensors(b)
    assert set(old) <= set(new)
    assert {n: (t.shape, t.dtype) for n, t in old.items()} == {n: (new[n].shape, new[n].dtype) for n in old}
    moved = [n for n in old if not torch.equal(old[n], new[n])]
    assert len(moved) > 0.8 * len(old)
    assert {p.name for p in a.iterdir()} | {"regauge.json", "regauge.element"} == {p.name for p in b.iterdir()}
    undo(b, c)
    back = tensors(c)
    assert set(back) == set(old)
    assert all(torch.allclose(back[n], t, rtol=1e-4, atol=1e-5) for n, t in old.items())
    assert (c / "config.json").read_text() == (a / "config.json").read_text()
    assert error(outputs(a), outputs(c)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    save("llama", a, dtype=dtype, tie_word_embeddings=False)
    record = apply(a, b, RANDOM)
    assert record is not None and record["compute"] == "float32" and record["verify"]["ok"]
    assert all(t.dtype == dtype for t in tensors(b).values())
    wide = apply(a, tmp_path / "c", RANDOM, compute="float64")
    assert wide is not None
    exact, found = tensors(tmp_path / "c"), tensors(b)
    for name, t in exact.items():  # single precision decides a rounding now and then, never by more than one unit
        off = (found[name].double() - t.double()).abs() / (t.double().abs() + 1e-3)
        assert float(off.max()) <= 2 * torch.finfo(dtype).eps and float((off > 0).double().mean()) < 0.02
    floor = record["verify"]["stored"]["floor"]
    assert error(outputs(a), outputs(b)) < 20 * floor


def test_what_does_not_move_is_copied(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    save("llama", a)
    (a / "tokenizer").mkdir()
    (a / "tokenizer" / "words.txt").write_text("a b c")
    (a / "pytorch_model.bin").write_bytes(b"old weights")
    record = apply(a, b, RANDOM, verify="none")
    old, new = contents(a), contents(b)
    same = {n for n in old if old[n] == new[n]}
    assert {"config.json", "generation_config.json", "tokenizer/words.txt", "pytorch_model.bin"} <= same
    assert record is not None and "pytorch_model.bin" in record["notes"][0]
    first, second = (json.loads(d["model.safetensors.index.json"]) for d in (old, new))
    assert first == second and list(first["weight_map"]) == list(second["weight_map"])
    assert json.loads(new["regauge.json"])["output"]["files"].keys() == {n for n in old if n.endswith(".safetensors")}


@pytest.mark.slow
def test_no_steps_give_the_same_bytes(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    save("qwen3_moe", a)
    apply(a, b, [])
    old, new = contents(a), contents(b)
    assert all(new[n] == old[n] for n in old)


def test_an_untied_model(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    save("gpt2", a)
    assert json.loads((a / "config.json").read_text())["tie_word_embeddings"] is True
    with pytest.raises(InputError, match="leave out --untie"):
        apply(save("llama", tmp_path / "untied", tie_word_embeddings=False), c, ["untie"])
    record = apply(a, b, ["untie", *RANDOM])
    assert record is not None and "untied: lm_head.weight" in record["notes"][0]
    before, after = (json.loads((f / "config.json").read_text()) for f in (a, b))
    assert {k for k in after if after[k] != before.get(k)} == {"tie_word_embeddings"}
    assert set(tensors(b)) - set(tensors(a)) == {"lm_head.weight"}
    assert error(outputs(a), outputs(b)) < 1e-5


@pytest.mark.slow
def test_smaller_shards(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    save("llama", a, shard="5GB")
    assert not (a / "model.safetensors.index.json").exists()
    apply(a, b, RANDOM, shard_size="6KB")
    files = list(b.glob("*.safetensors"))
    assert len(files) > 2 and all(f.stat().st_size < 9_000 for f in files)
    assert error(outputs(a), outputs(b)) < 1e-5
    apply(a, c, RANDOM)
    one, many = tensors(c), tensors(b)
    assert [p.name for p in c.glob("*.safetensors")] == ["model.safetensors"]
    assert all(torch.equal(one[n], many[n]) for n in one)


def test_what_is_not_rounded_comes_back_to_the_same_bytes(tmp_path: Path) -> None:
    """Untying moves no number, and a permutation rounds none."""

    def permuted(gauge: Gauge, state: Mapping[str, Tensor]) -> Element:
        return Element(gauge.plan, (sorted_orders(gauge.plan, State(gauge.plan, state))[0],))

    a, b, c = (tmp_path / n for n in "abc")
    save("llama", a, dtype=torch.bfloat16, tie_word_embeddings=True)
    carry_out(a, b, Settings({"steps": ["untie"]}, untie=True), permuted, verify="none", force=False)
    old, moved = tensors(a), tensors(b)
    assert set(moved) == {*old, "lm_head.weight"}
    assert sum(not torch.equal(old[n], moved[n]) for n in old) >= 8
    undo(b, c, verify="none")
    new = contents(c)
    assert all(new[n] == held for n, held in contents(a).items())


def test_every_place_that_ties_is_patched() -> None:
    config = {"tie_word_embeddings": True, "text_config": {"model_type": "x", "tie_embeddings": True, "width": 3},
              "vision_config": {"model_type": "y"}}  # fmt: skip
    some, first = patch_ties(config, everywhere=False)
    assert some["text_config"]["tie_embeddings"] is False and some["tie_word_embeddings"] is False
    assert "tie_word_embeddings" not in some["vision_config"]
    every, second = patch_ties(config, everywhere=True)
    assert every["vision_config"]["tie_word_embeddings"] is False and len(second) > len(first)
    for changed, patches in ((some, first), (every, second)):
        back = [Patch(p.path, p.new, p.old) for p in patches]
        assert patched(config, patches) == changed and patched(changed, back) == config


def test_existing_output_is_refused_and_replaced_whole(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    save("llama", a)
    b.mkdir()
    (b / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="--force"):
        apply(a, b, RANDOM)
    assert contents(b) == {"mine.txt": b"keep"}
    apply(a, b, RANDOM, force=True, verify="none")
    assert not (b / "mine.txt").exists() and (b / "config.json").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_function_that_changes_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An element of a larger group than the model has: gains of the norms alone."""
    from regauge.jobs.shard import Images

    a, b = tmp_path / "a", tmp_path / "b"
    save("llama", a)
    honest = Images.parts

    def dishonest(self: Images, name: str, *more: torch.Tensor) -> list[torch.Tensor]:
        return [part * (1.01 if "norm" in name else 1) for part in honest(self, name, *more)]

    monkeypatch.setattr(Images, "parts", dishonest)
    with pytest.raises(CheckError, match="the function changed"):
        apply(a, b, RANDOM)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_weights_that_are_not_as_the_config_says(tmp_path: Path) -> None:
    a = save("llama", tmp_path / "a")
    config = json.loads((a / "config.json").read_text())
    (a / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    with pytest.raises(InputError, match="do not fit config.json"):
        apply(a, tmp_path / "b", RANDOM)
    (a / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(InputError, match=r"quantised \(fp8\)"):
        apply(a, tmp_path / "b", RANDOM)
    (a / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaModel"]}))
    with pytest.raises(InputError, match="lm_head.weight.*--keep-unused"):
        apply(a, tmp_path / "b", RANDOM)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"how: turn\.npy is no file, and none of hadamard"):
        from_options(rotate=("stream=turn.npy",))
    with pytest.raises(InputError, match=r"moments: m\.npy is no file: check"):
        from_options(rotate=("pca=m.npy",))


@pytest.mark.slow
def test_undo_needs_its_record(tmp_path: Path) -> None:
    a, b = save("llama", tmp_path / "a"), tmp_path / "b"
    with pytest.raises(InputError, match=r"holds no regauge\.json"):
        undo(a, tmp_path / "c")
    apply(a, b, RANDOM)
    element = b / "regauge.element"
    held = element.read_bytes()
    element.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    with pytest.raises(InputError, match="is not the element"):
        undo(b, tmp_path / "c")
