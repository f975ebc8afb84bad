"""Exceptions by type: what a tiny configuration needs beyond the meaning of its fields.

`BEFORE` holds arguments of the configuration, chosen before it is shrunk (defaults that the library leaves empty, or
kinds of layer that the default lacks). `AFTER` holds values assigned to the small one, by dotted path; a function is
called with the small configuration. Everything general belongs in
`regauge.checkpoint.shrink`; this table may know types by name because it is a benchmark's, not the library's.
"""

from __future__ import annotations

from typing import Any

EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1}
SHORT_CONVOLUTION = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}
SHARED_HYBRID = {
    "num_hidden_layers": 4,
    "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
}


def _other_vision_tower(config: Any) -> Any:
    """A tower of the library itself where the default one comes from another package."""
    from transformers import SiglipVisionConfig

    old = config.vision_config
    tower = SiglipVisionConfig(
        hidden_size=old.hidden_size,
        intermediate_size=37,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    tower.vocab_size, tower.vocab_offset, tower.rms_norm_eps = old.vocab_size, old.vocab_offset, old.rms_norm_eps
    return tower


def _sections(config: Any) -> dict[str, Any]:
    """Planes for time, height and width, where the library's default counts those of a full head."""
    rope = dict(config.rope_parameters)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    planes = int(size * rope.get("partial_rotary_factor", 1.0)) // 2
    return rope | {"mrope_section": [planes - 2 * (planes // 3), planes // 3, planes // 3]}


INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 256,
    "indexer_budget": 2048,
    "indexer_compress_ratio": 4,
}
ASSISTANT = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "num_kv_shared_layers": 30}

BEFORE: dict[str, dict[str, Any]] = {
    "dots1": EXPERTS,
    "deepseek_v2": {"num_experts_per_tok": 2},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "lfm2": SHORT_CONVOLUTION,
    "lfm2_moe": {**SHORT_CONVOLUTION, "num_dense_layers": 1},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "xmod": {"default_language": "en_XX"},
    "wav2vec2-bert": {"vocab_size": 32},
    "wav2vec2-conformer": {"vocab_size": 32},
    "qwen4_exp": {"text_config": INDEXER},
    "qwen4_exp_text": INDEXER,
    "gemma4_assistant": {"text_config": ASSISTANT},
    "gemma4_unified_assistant": {"text_config": ASSISTANT},
}

AFTER: dict[str, dict[str, Any]] = {
    "dbrx": {
        "attn_config.rope_theta": 10000.0,
        "attn_config.clip_qkv": 0.7,
        "ffn_config.moe_num_experts": 5,
        "ffn_config.moe_top_k": 2,
    },
    "gemma4_assistant": {"num_centroids": 7},
    "gemma4_unified_assistant": {"num_centroids": 7},
    "gemma3n": {"vision_config": _other_vision_tower},
    "gpt_oss": {"swiglu_limit": 0.7},  # small activations never come near 7, and a clamp that never clamps is no clamp
    "qwen4_exp": {"indexer_head_dim": 12},
    "qwen4_exp_text": {"indexer_head_dim": 12},
    "moshi": {"ffn_dim": 46},
    "reformer": {
        "axial_pos_shape": (4, 4),
        "max_position_embeddings": 16,
        "num_buckets": 4,
        "axial_pos_embds_dim": lambda c: (c.hidden_size // 4, c.hidden_size - c.hidden_size // 4),
    },
    "zamba": {**SHARED_HYBRID},
    "zamba2": {
        **SHARED_HYBRID,
        "hybrid_layer_ids": [1, 3],
        "mamba_headdim": lambda c: c.mamba_expand * c.hidden_size // c.n_mamba_heads,
    },
    "codegen": {"n_head": 4, "rotary_dim": lambda c: c.n_embd // 4 // 4 * 2 or 2},
    "swin": {"window_size": 2},
    "donut-swin": {"window_size": 2},
    "maskformer-swin": {"window_size": 2},
    **{
        f"{name}_text": {"rope_parameters": _sections}
        for name in ("glm4v", "glm_ocr", "glm_image", "qwen2_vl", "qwen2_5_vl")
    },
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4}},
}
