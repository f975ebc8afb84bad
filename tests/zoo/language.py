"""Language models from transformers, tiny: two layers, random weights, no cache."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import PretrainedConfig

from tests.zoo.registry import Call, add, tokens

V, F = 17, 11


def built(config: PretrainedConfig, model: str, vocabulary: int = V, **kwargs: Any) -> Call:
    """The transformers class `model` on `config`, logits observed."""
    network = getattr(transformers, model)(config).eval()
    return Call(network, (tokens(vocabulary, 3, 7),), kwargs, "logits")


def llama(heads: int = 4, groups: int = 2, d: int = 8, dh: int = 2, layers: int = 2, tied: bool = False) -> Call:
    config = transformers.LlamaConfig(
        vocab_size=V,
        hidden_size=d,
        intermediate_size=F,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=dh,
        tie_word_embeddings=tied,
        use_cache=False,
        pad_token_id=None,
        rms_norm_eps=1e-5,
        max_position_embeddings=32,
    )
    return built(config, "LlamaForCausalLM")


def llama_dim(groups: int, d: int, dh: int, layers: int, tied: bool) -> int:
    stream = 2 * d * layers if tied else d * (d - 1) // 2 + d * (2 * layers + 1)
    return stream + layers * (groups * dh + groups * dh**2 + F)


for _name, _heads, _groups in (("mha", 2, 2), ("gqa", 4, 2), ("mqa", 2, 1)):
    for _tied in (False, True):
        add(
            f"llama-{_name}{'-tied' if _tied else ''}",
            llama_dim(_groups, 8, 4, 2, _tied),
            build=lambda h=_heads, g=_groups, t=_tied: llama(h, g, 8, 4, 2, t),
        )
add("llama-one-layer", llama_dim(1, 6, 4, 1, False), lambda: llama(2, 1, 6, 4, 1))


def qwen2(tied: bool = False) -> Call:
    config = transformers.Qwen2Config(
        vocab_size=V,
        hidden_size=8,
        intermediate_size=F,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=2,
        tie_word_embeddings=tied,
        use_cache=False,
        rms_norm_eps=1e-5,
        max_position_embeddings=32,
    )
    return built(config, "Qwen2ForCausalLM")


add("qwen2", llama_dim(2, 8, 2, 2, False), qwen2, why="as Llama when g dh <= d")
add("qwen2-tied", llama_dim(2, 8, 2, 2, True), lambda: qwen2(True))


def gpt2(tied: bool) -> Call:
    config = transformers.GPT2Config(
        vocab_size=V,
        n_positions=7,
        n_embd=6,
        n_layer=2,
        n_head=2,
        n_inner=F,
        tie_word_embeddings=tied,
        use_cache=False,
        layer_norm_epsilon=1e-5,
    )
    return built(config, "GPT2LMHeadModel")


def gpt2_dim(tied: bool, d: int = 6, heads: int = 2, layers: int = 2, positions: int = 7) -> int:
    dh = d // heads
    block = 2 * heads * dh**2 + 2 * d + 5 * d + 2 * d + F + (d + 1) + (F + 1)
    ends = 0 if tied else V + (d - 1) + (d - 1) * (d - 2) // 2 + 2 * d
    return layers * block + positions + ends


add("gpt2-tied", gpt2_dim(True), lambda: gpt2(True))
add("gpt2", gpt2_dim(False), lambda: gpt2(False))


def bert(model: str, **kwargs: Any) -> Call:
    config = transformers.BertConfig(
        vocab_size=V,
        hidden_size=6,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=F,
        max_position_embeddings=7,
        type_vocab_size=2,
        pad_token_id=None,
        num_labels=5,
    )
    return built(config, model, token_type_ids=tokens(2, 3, 7))


def bert_dim(d: int = 6, heads: int = 2, layers: int = 2) -> int:
    dh = d // heads
    block = 2 * heads * dh**2 + 2 * d + (d + 1) + (F + 1) + 2 * d + 3 * d + F
    return layers * block + (2 * d + d) + V + 7 + 2 + 2 * (d - 1)


add("bert-classifier", bert_dim(), lambda: bert("BertForSequenceClassification"))


def mlm_dim(d: int = 6) -> int:
    """The classifier's, but: the embedding's rows are the head's too, so their means show, and of their d shifts
    against the positions only the one along 1 / gain of the last norm stays, which the decoder's bias undoes; that
    norm's shift goes into the decoder's bias."""
    return bert_dim(d) - V - (d - 1) + 1 + d


add("bert-mlm-tied", mlm_dim(), lambda: bert("BertForMaskedLM"))


def opt() -> Call:
    config = transformers.OPTConfig(
        vocab_size=V,
        hidden_size=6,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=F,
        word_embed_proj_dim=6,
        max_position_embeddings=7,
        pad_token_id=None,
        use_cache=False,
        dropout=0.0,
    )
    return built(config, "OPTForCausalLM")


def opt_dim(d: int = 6, heads: int = 2, layers: int = 2, positions: int = 7, unread: int = 2) -> int:
    dh = d // heads
    block = 2 * heads * dh**2 + 2 * d + 5 * d + 2 * d + F + (d + 1) + (F + 1) + F
    return layers * block + positions + unread * d


add("opt", opt_dim(), opt, why="as GPT-2 tied, with relu, and two position rows that are never read")


def neox(parallel: bool, v: int = 31, f: int = 5) -> Call:
    """The first parallel MLP is a function of the token alone: the vocabulary must be too large for it to be any."""
    config = transformers.GPTNeoXConfig(
        vocab_size=v,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=f,
        use_parallel_residual=parallel,
        use_cache=False,
        tie_word_embeddings=False,
        max_position_embeddings=32,
        layer_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    )
    return built(config, "GPTNeoXForCausalLM", v)


def neox_dim(parallel: bool, d: int = 8, heads: int = 2, layers: int = 2, r: int = 2, v: int = 31, f: int = 5) -> int:
    dh = d // heads
    queries_keys = heads * (r + (dh - r) ** 2 + (dh - r))
    block = queries_keys + heads * (dh**2 + dh) + 5 * d + 2 * d + f + (d + 1) + (f + 1) + parallel * (d - 1)
    return layers * block + v + (d - 1) * (d - 2) // 2 + 2 * d


add("neox-parallel", neox_dim(True), lambda: neox(True))
add("neox-sequential", neox_dim(False), lambda: neox(False))


def t5() -> Call:
    config = transformers.T5Config(
        vocab_size=V,
        d_model=6,
        d_kv=3,
        d_ff=F,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        use_cache=False,
        pad_token_id=0,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
        dropout_rate=0.0,
    )
    network = transformers.T5ForConditionalGeneration(config).eval()
    return Call(network, (tokens(V, 3, 11),), {"decoder_input_ids": tokens(V, 3, 7)}, "logits")


def t5_dim(d: int = 6, heads: int = 2, dh: int = 3, layers: int = 2, unread: int = 2) -> int:
    """Gains of all norms but the last, which the tied head keeps; attention without biases; relu; the two tables of
    relative positions: a shift for each head, and buckets that are never read (one of the encoder's by its formula,
    two of the decoder's at this length)."""
    gains = (2 * layers + 1 + 3 * layers) * d
    return gains + 3 * layers * heads * 2 * dh**2 + 2 * layers * F + 2 * heads + heads + unread * heads


add("t5", t5_dim(), t5)
