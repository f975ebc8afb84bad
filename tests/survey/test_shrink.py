"""A shrunk configuration is small, valid, and of the same architecture."""

import pytest
import transformers

from regauge.checkpoint.shrink import config_nodes, cover, shrink_config


def test_sizes_of_a_plain_decoder_differ_from_one_another():
    full = transformers.LlamaConfig(num_key_value_heads=8)
    small = shrink_config(full)
    sizes = [
        small.hidden_size,
        small.intermediate_size,
        small.vocab_size,
        small.head_dim,
        small.num_attention_heads,
        small.num_key_value_heads,
        small.max_position_embeddings,
    ]
    assert len(set(sizes)) == len(sizes)
    assert small.num_attention_heads * small.head_dim == small.hidden_size
    assert small.num_hidden_layers == 2 and small.use_cache is False
    assert full.hidden_size == 4096, "the original is left as it was"


@pytest.mark.parametrize("groups, ratio", [(32, 1), (8, 2), (1, 4)])
def test_grouped_queries_keep_a_ratio_above_one(groups, ratio):
    small = shrink_config(transformers.LlamaConfig(num_attention_heads=32, num_key_value_heads=groups))
    assert small.num_attention_heads == ratio * small.num_key_value_heads


def test_every_kind_of_layer_stays():
    full = transformers.Gemma2Config()
    small = shrink_config(full)
    assert set(small.layer_types) == set(full.layer_types)
    assert len(small.layer_types) == small.num_hidden_layers


def test_cover_keeps_each_value_of_each_column():
    keys = [("a", "x"), ("a", "x"), ("b", "x"), ("a", "y")]
    kept = cover(keys, 2)
    assert {keys[i][0] for i in kept} == {"a", "b"} and {keys[i][1] for i in kept} == {"x", "y"}
    assert kept == sorted(kept)


def test_experts_stay_more_than_are_chosen_and_groups_divide_them():
    small = shrink_config(transformers.DeepseekV3Config())
    assert 1 < small.num_experts_per_tok < small.n_routed_experts
    assert small.n_routed_experts % small.n_group == 0 and small.topk_group < small.n_group
    assert small.qk_head_dim == small.qk_nope_head_dim + small.qk_rope_head_dim


def test_partial_rotary_stays_partial_and_even():
    small = shrink_config(transformers.StableLmConfig())
    factor = small.rope_parameters["partial_rotary_factor"]
    rotated = int(factor * small.hidden_size // small.num_attention_heads)
    assert 0 < rotated < small.hidden_size // small.num_attention_heads and rotated % 2 == 0


def test_nested_towers_get_widths_of_their_own_and_tokens_stay_in_the_vocabulary():
    small = shrink_config(transformers.Gemma3Config())
    text, vision = small.text_config, small.vision_config
    assert text.hidden_size != vision.hidden_size
    tokens = [
        v
        for n in config_nodes(small)
        for k, v in vars(n).items()
        if k.endswith(("_token_id", "_token_index")) and isinstance(v, int)
    ]
    assert max(tokens) < text.vocab_size


def test_sizes_equal_for_a_reason_stay_equal():
    full = transformers.ZambaConfig()
    small = shrink_config(full)
    assert full.attention_hidden_size == 2 * full.hidden_size
    assert small.attention_hidden_size == 2 * small.hidden_size
    assert small.attention_head_dim * small.num_attention_heads == small.attention_hidden_size


def test_a_rotary_factor_that_repeats_the_part_of_a_head_that_turns_goes_on_repeating_it():
    full = transformers.LlamaConfig(head_dim=64, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    vars(full).update(qk_nope_head_dim=48, qk_rope_head_dim=16)
    for factor, follows in ((0.25, True), (0.5, False)):
        full.rope_parameters["partial_rotary_factor"] = factor
        small = shrink_config(full)
        turned = int(small.head_dim * small.rope_parameters["partial_rotary_factor"])
        assert 0 < turned < small.head_dim
        assert (turned == small.qk_rope_head_dim) or not follows


def test_bounds_on_values_are_reached():
    small = shrink_config(transformers.GptOssConfig())
    assert 0 < small.swiglu_limit < 1
    assert shrink_config(transformers.DbrxConfig()).attn_config.clip_qkv is None, "no bound stays none"
