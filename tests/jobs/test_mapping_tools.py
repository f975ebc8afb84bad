"""The exported mappings in the tools that they are for, where those are installed: the function stays.

One model has the names that the tools fall back to, the other has norms by other names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models import save
from torch import Tensor, nn

from regauge.check.lift import lifted
from regauge.jobs.mapping import export_mapping

KINDS = ["llama", "apertus"]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
IDS = torch.arange(21).reshape(3, 7)


def loaded(folder: Path) -> nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad(), lifted():
        return model(IDS).logits


def change(model: nn.Module, before: Tensor) -> float:
    return float((logits(model) - before).abs().max() / before.abs().max())


def named(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_llmcompressor(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llmcompressor")
    from llmcompressor.core import State
    from llmcompressor.modifiers.transform import SpinQuantModifier
    from llmcompressor.modifiers.transform.spinquant import mappings, norm_mappings

    found = export_mapping(str(save(kind, tmp_path, **SIZES)), "llmcompressor")
    name = found["architecture"]
    monkeypatch.setitem(mappings.SPINQUANT_MAPPING_REGISTRY, name, mappings.SpinQuantMapping(**found["mapping"]))
    norms = [norm_mappings.NormMapping(**entry) for entry in found["norm_mappings"]]
    monkeypatch.setitem(norm_mappings.NORM_MAPPING_REGISTRY, name, norms)

    def rotated(how: str) -> tuple[float, int]:
        model = loaded(tmp_path)
        before, old = logits(model), named(model)
        modifier = SpinQuantModifier(rotations=["R1", "R2"], transform_type=how)
        state = State()
        state.model = model
        modifier.on_initialize(state)
        modifier.on_calibration_start(state, None)
        return change(model, before), sum(not torch.equal(p, old[n]) for n, p in model.named_parameters())

    error, moved = rotated("hadamard")  # as it comes: embeddings are centred
    assert error > 1e-2
    monkeypatch.setattr(SpinQuantModifier, "_center_embeddings", lambda self, model: None)
    for how in ("hadamard", "random-hadamard"):
        error, moved = rotated(how)
        assert error < 1e-10 and moved >= 14
    assert rotated("random-matrix")[0] > 1e-2  # no orthogonal matrices, as the notes say
    ignored = SpinQuantModifier(mappings=mappings.SpinQuantMapping(**{**found["mapping"], "attn_v": "nothing"}))
    state = State()
    state.model = loaded(tmp_path)
    ignored.on_initialize(state)
    assert ignored.mappings.attn_v == found["mapping"]["attn_v"]  # the argument has no effect, as the notes say


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_autoround(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("auto_round")
    from auto_round.algorithms.transforms.hadamard.inplace import apply as tool
    from auto_round.algorithms.transforms.hadamard.inplace import model_config

    found = export_mapping(str(save(kind, tmp_path, **SIZES)), "autoround")
    mapping = model_config.RotationMapping(**found["mapping"])
    for key in (found["architecture"], kind):
        monkeypatch.setitem(model_config.MAPPING_REGISTRY, key, mapping)
    for how in ("hadamard", "random_hadamard"):
        model = loaded(tmp_path)
        before, old = logits(model), named(model)
        turned, _ = tool.apply_rotation_transform(model, rotation_matrix=how, compute_device="cpu")
        assert change(turned, before) < 1e-5  # its online factors are in single precision
        assert sum(not torch.equal(p, old[n]) for n, p in turned.named_parameters()) >= 14


@pytest.mark.slow
def test_a_model_whose_mapping_is_not_the_default_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("auto_round")
    from auto_round.algorithms.transforms.hadamard.inplace import apply as tool

    save("apertus", tmp_path, **SIZES)
    with pytest.raises(AttributeError, match="input_layernorm"):
        tool.apply_rotation_transform(loaded(tmp_path), compute_device="cpu", fuse_online_to_weight=True)
