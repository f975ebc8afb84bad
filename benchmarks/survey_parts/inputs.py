"""Inputs of the causal types that take more, or other things, than a row of tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regauge.checkpoint.shrink import config_nodes

BATCH, SEQUENCE = 7, 11


def token_ids(config: Any, seed: int, batch: int = BATCH, sequence: int = SEQUENCE) -> Tensor:
    """Random ordinary tokens: none that a configuration calls special."""
    sizes = [vars(n)["vocab_size"] for n in config_nodes(config) if type(vars(n).get("vocab_size")) is int]
    special = {v for n in config_nodes(config) for k, v in vars(n).items() if "token" in k and type(v) is int}
    ordinary = torch.tensor([t for t in range(min(sizes) if sizes else 32) if t not in special])
    picks = torch.randint(len(ordinary), (batch, sequence), generator=torch.Generator().manual_seed(seed + 1))
    return ordinary[picks]


def causal_inputs(name: str, config: Any, seed: int) -> dict[str, Any]:
    """Keyword inputs of a causal type: tokens, unless the type is one of the exceptions below."""
    tokens = token_ids(config, seed)
    if name in ("musicgen", "musicgen_melody"):  # one row for each codebook
        return {"input_ids": token_ids(config, seed, batch=BATCH * config.num_codebooks)}
    if name == "blt":  # bytes, with their patches given rather than measured by entropy
        lengths = torch.tensor([[1, 1, 2, 3, 1, 3, 1]]).expand(BATCH, 7).contiguous()
        return {"input_ids": tokens, "patch_lengths": lengths}
    if name in ("gemma4_assistant", "gemma4_unified_assistant"):  # drafts from another model's states
        inputs = _draft_inputs(config, seed)
        return inputs if "unified" in name else inputs | {"logits_to_keep": torch.arange(SEQUENCE)}
    if name == "reformer":  # whole chunks, or it pads and counts the padding
        return {"input_ids": token_ids(config, seed, sequence=12)}
    return {"input_ids": tokens}


def _draft_inputs(config: Any, seed: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(seed + 1)
    text = config.get_text_config()
    states = {}
    for kind in dict.fromkeys(text.layer_types):
        layer = text.per_layer_config[kind]
        shape = (BATCH, layer.num_key_value_heads, SEQUENCE, layer.head_dim)
        states[kind] = (torch.randn(shape, generator=rng), torch.randn(shape, generator=rng))
    return {
        "inputs_embeds": torch.randn(BATCH, SEQUENCE, 2 * config.backbone_hidden_size, generator=rng),
        "position_ids": torch.arange(SEQUENCE).expand(BATCH, SEQUENCE).contiguous(),
        "shared_kv_states": states,
    }
