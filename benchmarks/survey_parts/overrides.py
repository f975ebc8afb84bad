"""Exceptions by type: what a tiny configuration needs beyond the meaning of its fields.

Values are assigned after `shrink_config`, by dotted path into the configuration. Everything general belongs in
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
    "qwen4_exp": {},
    "gemma4_assistant": {},
}

AFTER: dict[str, dict[str, Any]] = {
    "dbrx": {"attn_config.rope_theta": 10000.0},
    "moshi": {"ffn_dim": 46},
    "reformer": {
        "axial_pos_shape": (4, 4), "axial_pos_embds_dim": (8, 16), "max_position_embeddings": 16, "num_buckets": 4,
    },
    "zamba": {**SHARED_HYBRID},
    "zamba2": {**SHARED_HYBRID, "hybrid_layer_ids": [1, 3]},
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4}},
}
