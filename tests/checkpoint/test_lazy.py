"""Tensors read one at a time from files, under the model's names: the same as what transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from regauge.checkpoint import open_model
from regauge.checkpoint.lazy import lazy_state
from regauge.checkpoint.shards import open_shards
from regauge.errors import InputError


def saved(kind: str, folder: Path, **changes: Any) -> Path:
    """A tiny model of a type, with random weights, as transformers saves it in several shards."""
    import transformers

    from regauge.checkpoint.pretrained import model_class, quiet
    from regauge.checkpoint.shrink import shrink_config

    config = shrink_config(transformers.AutoConfig.for_model(kind), width=12, layers=2, vocabulary=31, positions=11)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    with quiet():
        model = model_class(config)._from_config(config).float().eval()
        for p in model.parameters():
            torch.nn.init.normal_(p, 0.5 if p.ndim == 1 else 0.0, 0.3)
        model.save_pretrained(folder, max_shard_size="6KB")
    return folder


# renamed, joined experts, tied, fused projections, packed rows, two stacks
KINDS = ["llama", "mixtral", "qwen3_moe", "deepseek_v3", "ernie4_5_moe", "bert", "gpt2", "phi3", "gpt_neox", "t5"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_is_what_transformers_loads(kind: str, tmp_path: Path) -> None:
    opened = open_model(str(saved(kind, tmp_path)))
    lazy = lazy_state(tmp_path, opened.skeleton().model)
    loaded = opened.loaded().model.state_dict()
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert set(lazy) <= set(loaded) and not lazy.naming.unused
    for name in lazy:
        assert torch.equal(lazy[name], loaded[name]), name
    for group in lazy.naming.groups:
        made = {n: loaded[n] for n in group.params}
        back = lazy.naming.store(group, made)
        assert set(back) == set(group.files)
        assert all(torch.equal(back[n], lazy.shards[n]) for n in group.files)
    if kind in ("mixtral", "qwen3_moe"):
        assert lazy.naming.groups


def test_every_dtype_is_read_as_it_is(tmp_path: Path) -> None:
    tensors = {str(d): torch.arange(6).reshape(2, 3).to(d) for d in
               (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool)}  # fmt: skip
    tensors |= {"empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt", "maker": "test"})
    shards = open_shards(tmp_path)
    assert shards.metadata == {"model.safetensors": {"format": "pt", "maker": "test"}}
    expected = load_file(tmp_path / "model.safetensors")
    assert set(shards) == set(expected)
    assert all(torch.equal(shards[n], t) and shards[n].dtype == t.dtype for n, t in expected.items())


def test_a_shape_that_does_not_fit(tmp_path: Path) -> None:
    model = open_model(str(saved("llama", tmp_path))).skeleton().model
    config = json.loads((tmp_path / "config.json").read_text())
    config["intermediate_size"] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    wide = open_model(str(tmp_path)).skeleton().model
    with pytest.raises(InputError, match="do not fit config.json.*two models"):
        lazy_state(tmp_path, wide)
    lazy_state(tmp_path, model)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    shards = open_shards(tmp_path)
    last = max(shards.entries.values(), key=lambda e: e.start)
    file = tmp_path / last.file
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="ends within"):
        shards[last.name]
    with pytest.raises(InputError, match="truncated"):
        open_shards(tmp_path)


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    first = next(iter(index["weight_map"]))
    save_file({first: torch.zeros(1)}, tmp_path / "more.safetensors")
    index["weight_map"]["another"] = "more.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="is in both"):
        open_shards(tmp_path)
