"""Tiny models of several families on disk, and the function that transformers computes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


def save(kind: str, folder: Path, *, dtype: torch.dtype = torch.float32, shard: str = "6KB", **changes: Any) -> Path:
    """A tiny model of a type with random weights, as transformers saves it in several shards."""
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
            torch.nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.3)
        model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


def outputs(folder: Path, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """What transformers computes from a directory on fixed inputs, in double precision."""
    from transformers import AutoConfig

    from regauge.check.lift import lifted
    from regauge.checkpoint.inputs import example_inputs
    from regauge.checkpoint.pretrained import model_class, prepared, quiet

    with quiet():
        config = prepared(AutoConfig.from_pretrained(folder))
        model, info = model_class(config).from_pretrained(folder, config=config, dtype=dtype, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    with torch.no_grad(), lifted():
        found = model.eval()(**example_inputs(model))
    return [t for t in found.values() if isinstance(t, Tensor)]


def error(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x.double() - y.double()).abs().max() / x.double().abs().max()) for x, y in zip(a, b, strict=True))


def tensors(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
