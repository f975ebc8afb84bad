"""Tiny models of twelve families with random generic weights."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf
from torch import nn

from regauge.check.generic import randomise

TEXT: dict[str, Any] = {"vocab_size": 67, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE: dict[str, Any] = {**TEXT, "intermediate_size": 56, "max_position_embeddings": 24}
GROUPED: dict[str, Any] = {**WIDE, "num_key_value_heads": 2, "pad_token_id": 0}


def _build() -> dict[str, Any]:
    return {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**GROUPED)),
        "llama-tied": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**GROUPED, tie_word_embeddings=True)),
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**GROUPED)),
        "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**GROUPED, head_dim=8)),
        "gemma": lambda: tf.GemmaForCausalLM(tf.GemmaConfig(**GROUPED, head_dim=8)),
        "mixtral": lambda: tf.MixtralForCausalLM(
            tf.MixtralConfig(**GROUPED, num_local_experts=4, experts_implementation="batched_mm")
        ),
        "gpt2": lambda: tf.GPT2LMHeadModel(
            tf.GPT2Config(vocab_size=67, n_embd=32, n_layer=2, n_head=4, n_positions=24, bos_token_id=0, eos_token_id=0)
        ),
        "neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**WIDE)),
        "opt": lambda: tf.OPTForCausalLM(
            tf.OPTConfig(**TEXT, ffn_dim=56, max_position_embeddings=24, word_embed_proj_dim=32)
        ),
        "bert": lambda: tf.BertForSequenceClassification(tf.BertConfig(**WIDE)),
        "t5": lambda: tf.T5EncoderModel(
            tf.T5Config(vocab_size=67, d_model=32, d_kv=8, d_ff=56, num_layers=2, num_heads=4)
        ),
        "vit": lambda: tf.ViTForImageClassification(
            tf.ViTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=56,
                image_size=16,
                patch_size=4,
            )
        ),
        "mamba": lambda: tf.MambaForCausalLM(
            tf.MambaConfig(vocab_size=67, hidden_size=32, num_hidden_layers=2, state_size=6)
        ),
    }


FAMILIES = tuple(_build())


def build(name: str, seed: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    """A model in evaluation mode, and inputs for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build()[name]().eval()
    model.config.use_cache = False
    randomise(model, torch.Generator().manual_seed(seed))
    return model, inputs(name)


def inputs(name: str, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    if name == "vit":
        return {"pixel_values": torch.randn(5, 3, 16, 16, generator=generator)}
    ids = torch.randint(0, 67, (5, 11), generator=generator)
    return {"input_ids": ids, **({} if name in ("bert", "t5", "vit") else {"use_cache": False})}
