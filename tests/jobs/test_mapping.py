"""Exported mappings are carried out here as the tools say they do it, with plain matrix products: the function stays."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from models import save
from torch import Tensor, nn

from regauge.cli.app import run
from regauge.errors import InputError
from regauge.jobs.mapping import export_mapping


def matched(model: nn.Module, wanted: str) -> list[nn.Module]:
    """Modules by the rule of the first tool: a name, or re: and an expression that matches from the start."""
    found = [
        m for n, m in model.named_modules() if (re.match(wanted[3:], n) if wanted.startswith("re:") else n == wanted)
    ]
    assert found, wanted
    return found


def rotate(model: nn.Module, mapping: dict[str, Any], norms: list[dict[str, Any]]) -> None:
    """Fold each norm into its readers, turn the stream, turn the values of each head."""
    width = model.config.hidden_size
    stream = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64)).Q
    small = mapping["attn_head_dim"]
    head = torch.linalg.qr(torch.randn(small, small, dtype=torch.float64)).Q
    for entry in norms:
        found, readers = matched(model, entry["norm"]), [matched(model, n) for n in entry["linears"]]
        for i, norm in enumerate(found):
            for kind in readers:
                kind[i].weight.mul_(norm.weight)
            norm.weight.fill_(1.0)
    for name in [mapping["embedding"]]:
        for m in matched(model, name):
            m.weight.copy_(m.weight @ stream)
    for name in [mapping["attn_o"], *mapping["mlp_out"]]:
        for m in matched(model, name):
            m.weight.copy_(stream.T @ m.weight)
    for name in [mapping["attn_q"], mapping["attn_k"], mapping["attn_v"], *mapping["mlp_in"], mapping["lm_head"]]:
        for m in matched(model, name):
            m.weight.copy_(m.weight @ stream)
    for m in matched(model, mapping["attn_v"]):
        m.weight.copy_((head.T @ m.weight.reshape(-1, small, width)).reshape(m.weight.shape))
        if m.bias is not None:
            m.bias.copy_((m.bias.reshape(-1, small) @ head).reshape(-1))
    for m in matched(model, mapping["attn_o"]):
        m.weight.copy_((m.weight.reshape(width, -1, small) @ head).reshape(m.weight.shape))


@pytest.mark.parametrize("kind", ["llama", "qwen2", pytest.param("qwen3", marks=pytest.mark.slow)])
def test_the_mapping_rotates_the_model(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from regauge.check.lift import lifted

    save(kind, tmp_path, tie_word_embeddings=False)
    found = export_mapping(str(tmp_path), "llmcompressor")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    ids = torch.arange(21).reshape(3, 7)
    with torch.no_grad(), lifted():
        before: Tensor = model(ids).logits
        rotate(model, {**found["mapping"], "attn_head_dim": model.config.head_dim if hasattr(model.config, "head_dim")
                       else model.config.hidden_size // model.config.num_attention_heads}, found["norm_mappings"])  # fmt: skip
        after = model(ids).logits
    assert float((after - before).abs().max() / before.abs().max()) < 1e-11
    assert any("ignores the arguments mappings=" in n for n in found["notes"])
    assert any("subtracts the mean" in n for n in found["notes"])


def test_both_forms_name_the_same_modules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save("llama", tmp_path / "m")  # tied: both tools untie first
    one = export_mapping(str(tmp_path / "m"), "llmcompressor")["mapping"]
    assert run(["export-mapping", str(tmp_path / "m"), "--for", "autoround", "--out", str(tmp_path / "map.json")]) == 0
    two = json.loads((tmp_path / "map.json").read_text())["mapping"]
    for role in ("attn_q", "attn_k", "attn_v", "attn_o"):
        assert re.match(one[role][3:], f"{two['layers_attr']}.1.{two[role]}")
    for pattern, inner in zip(one["mlp_in"], two["mlp_in"], strict=True):
        assert re.match(pattern[3:], f"{two['layers_attr']}.0.{inner}")
    assert run(["export-mapping", str(tmp_path / "m"), "--for", "autoround", "--out", str(tmp_path / "map.json")]) == 2


@pytest.mark.parametrize(
    ("kind", "reason"), [("gpt2", "Conv1D|remove the mean"), ("gemma", "computed as|plain gains"), ("gemma2", "stream")]
)
def test_what_does_not_fit_is_refused(kind: str, reason: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    with pytest.raises(InputError, match=reason):
        export_mapping(str(tmp_path), "llmcompressor")
