"""What the fields of a configuration count, told by their names, and the sizes of a small copy.

A field's name says whether it is a width, a number of heads, of layers, of experts, a rank, a window, a token: these
are the words that configurations share. No kind of model is known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

WIDTH_FIELDS = ("hidden_size", "d_model", "n_embd", "emb_dim", "dim", "embed_dim", "encoder_embed_dim", "width")
LAYER_FIELD = re.compile(
    r"^(num_hidden_layers|n_layers?|num_layers|depth|num_blocks|num_transformer_layers|num_hidden_groups|"
    r"(num_)?(encoder|decoder|xmod|text|vision|audio|pre|h|l)_(hidden_)?layers|num_(encoder|decoder)_layers|"
    r"\w+_num_(hidden_)?layers|num_\w+_blocks|num_\w*hidden_layers|num_layers_per_stack|num_feature_levels_layers)$",
    re.I,
)
HEAD_FIELD = re.compile(r"^(num_attention_heads|n_heads?|num_heads|\w*_?attention_heads|\w+_num_(attention_)?heads)$")
KV_FIELD = re.compile(r"^(\w+_)?(num_key_value_heads|num_kv_heads|kv_n_heads|n_kv_heads|multi_query_group_num)$")
HEAD_DIM_FIELD = re.compile(r"^(\w+_)?(head_dim|d_head|dim_head|d_kv|kv_channels|attention_head_size|head_size)$")
TOP_K_FIELD = re.compile(r"^(num_experts_per_tok(en)?|moe_topk|moe_top_k|moe_k|top_k_experts|num_selected_experts)$")
EXPERT_FIELD = re.compile(r"^((num|n)_(local_|routed_)?experts|moe_num_experts|ffn_num_experts|num_moe_experts)$")
FEED_FORWARD_FIELD = re.compile(
    r"(intermediate_size|ffn_dim|ffn_hidden_size|^d_ff$|^dff$|^dim_ff$|^n_inner$|^d_inner$|feed_forward_size|mlp_dim|"
    r"feedforward_dim|intermediate_dim|intermediate_size_mlp|^hidden_dim$|_intermediate_dim)"
)
TOKEN_FIELD = re.compile(r"(_token_id|_token_index|_token_ids|^(pad|bos|eos|unk|mask|sep|cls)_index|_tokens?_idx)$")
VOCABULARY_FIELD = re.compile(r"(vocab_size|vocab_size_per_layer_input|vocab_size_base|byte_group_vocab|codebook_size)")
POSITION_FIELD = re.compile(
    r"(max_position_embeddings|^n_positions$|^n_ctx$|max_seq_len|model_max_length|context_length|"
    r"max_(source|target)_positions|max_position|max_seqlen|max_sequence_length|max_text_len)"
)
WINDOW_FIELD = re.compile(
    r"(sliding_window(_size)?|attention_window_size|attention_chunk_size|local_attention|"
    r"local_attention_window_len|window_size|swa_window)$"
)
RANK_FIELD = re.compile(r"(lora_rank|_rank|^rank|lowrank|time_step_rank|^d_rel$)")
STATE_FIELD = re.compile(r"(d_state|state_size)$")
CHUNK_FIELD = re.compile(r"(chunk_size|chunk_length)$")
PERIOD_FIELD = re.compile(
    r"(_period|_interval|_every_n_layers|_freq|_frequency|sparse_step|layer_step|"
    r"layer_group_size|rescale_every|sliding_window_pattern)$"
)
DENSE_FIRST_FIELD = re.compile(r"^(first_k_dense_replace|num_dense_layers|num_first_dense_layers)$")
BUCKET_FIELD = re.compile(r"(num_buckets|attention_num_buckets|num_position_embeddings|rel_extent|max_distance)$")
STAGE_FIELD = re.compile(r"(depths|hidden_sizes|num_heads|kernel|stride|conv_dim|channel|layers_ind)")
LAYER_NUMBERS = re.compile(r"(layers|idxs|indexes|indices|layer_ids|_only_layers|layer_idx)$")
LIMIT_FIELD = re.compile(r"(_limits?|_clip_threshold|_clip|^clip_qkv)$")
SHARED_FIELD = re.compile(r"^num_kv_shared_layers$")
ROTARY_FACTORS = ("partial_rotary_factor", "rotary_pct", "rotary_percent", "rope_pct")
REACHED = 0.7  # a bound on values of unit size that some exceed and some do not
PRIMES = (47, 37, 41, 31, 43, 53, 29, 59, 67, 71, 73, 79, 83)


@dataclass
class Scale:
    """The sizes of the small copy, and the choices made so far for one whole configuration tree."""

    width: int
    layers: int
    vocabulary: int
    positions: int
    experts: int = 5
    widths: dict[int, int] = field(default_factory=dict)
    feed_forwards: dict[tuple[str, int], int] = field(default_factory=dict)
    vocabularies: dict[int, int] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Of a compressed path: a third of the width, and even (some are rotated in pairs)."""
        return max(4, self.width // 6 * 2)

    @property
    def latent_heads(self) -> tuple[int, int, int]:
        """Rotary, plain and value sizes of heads that a compressed path feeds: none exceeds its rank, as at full size."""
        return (4, 6, 5) if self.rank >= 8 else (2, 4, 3)

    def width_of(self, size: int) -> int:
        """One new width for each old one: 24, 16, 20, 32, ... times width/24; small multiples stay multiples."""
        if size not in self.widths:
            base = next((w for w in self.widths if w < size <= 4 * w and size % w == 0), None)
            steps = (24, 16, 20, 32, 40, 28, 36, 44, 48)
            step = steps[min(len(self.widths), len(steps) - 1)]
            fresh = max(4, step * self.width // 24 // 4 * 4)
            self.widths[size] = fresh if base is None else size // base * self.widths[base]
        return self.widths[size]

    def feed_forward_of(self, name: str, size: int) -> int:
        key = (name, size)
        if key not in self.feed_forwards:
            free = [p * self.width // 24 | 1 for p in PRIMES]
            taken = set(self.feed_forwards.values())
            self.feed_forwards[key] = next((p for p in free if p not in taken), free[-1])
        return self.feed_forwards[key]

    def vocabulary_of(self, size: int) -> int:
        if size not in self.vocabularies:
            self.vocabularies[size] = self.vocabulary + 2 * len(self.vocabularies)
        return self.vocabularies[size]

    def token_of(self, token: int) -> int:
        """Identities of special tokens: small ones stay, large ones go to the top of the vocabulary, one each."""
        if token < 0 or token < self.vocabulary // 4:
            return token
        if token in self.vocabularies:  # one row beyond the vocabulary, kept there
            return self.vocabularies[token]
        if token not in self.tokens:
            self.tokens[token] = (self.vocabulary - 1 - len(self.tokens)) % self.vocabulary
        return self.tokens[token]


def field_rules(name: str, scale: Scale) -> tuple[tuple[object, Callable[[int], int]], ...]:
    """What a field of this name counts, first match first, and the small number that takes its place."""
    return (
        (name in WIDTH_FIELDS, scale.width_of),
        (name == "codebook_size", lambda v: 64),
        (VOCABULARY_FIELD.search(name) and "type_vocab" not in name, scale.vocabulary_of),
        (POSITION_FIELD.search(name), lambda v: scale.positions),
        (WINDOW_FIELD.search(name), lambda v: 5),
        (FEED_FORWARD_FIELD.search(name), lambda v: scale.feed_forward_of(name, v)),
        (RANK_FIELD.search(name), lambda v: scale.rank + name.startswith("q")),
        (STATE_FIELD.search(name), lambda v: 5),
        (CHUNK_FIELD.search(name), lambda v: 4),
        (PERIOD_FIELD.search(name), lambda v: 2),
        (BUCKET_FIELD.search(name), lambda v: 9),
        (re.search(r"_offset$", name), lambda v: 1),
        (name == "max_window_layers", lambda v: 1),
        (re.search(r"(_topk|_topk_blocks|top_k|topk)$", name), lambda v: 4),
        (re.search(r"block_size$", name), lambda v: 4),
        (re.search(r"(multiple_of|divisible_by)$", name), lambda v: 1),
        (re.search(r"(num_codebooks|num_quantizers|num_queries|num_query_tokens|num_latents)$", name), lambda v: 3),
    )
