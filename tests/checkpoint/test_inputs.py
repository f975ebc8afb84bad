"""Example inputs for each kind of model: it runs on them, and they trace with parameters on the meta device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from regauge.checkpoint import open_model
from regauge.checkpoint.inputs import lengths, numbers
from regauge.graph.posing import posing_as_cpu

TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 96}
IMAGE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
         "image_size": 16, "patch_size": 8}  # fmt: skip
SPEECH = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "vocab_size": 96,
          "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_mel_bins": 8,
          "max_source_positions": 20, "max_target_positions": 24, "decoder_start_token_id": 1, "pad_token_id": 0,
          "bos_token_id": 2, "eos_token_id": 2}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 96, "n_positions": 40,
                                 "bos_token_id": 0, "eos_token_id": 0}, {"input_ids"}),
    "bert": ("BertForMaskedLM", {**TEXT, "max_position_embeddings": 40}, {"input_ids"}),
    "t5": ("T5ForConditionalGeneration", {"d_model": 32, "d_ff": 48, "num_layers": 1, "num_heads": 2, "d_kv": 16,
                                          "vocab_size": 96, "decoder_start_token_id": 0},
           {"input_ids", "decoder_input_ids"}),
    "vit": ("ViTForImageClassification", IMAGE, {"pixel_values"}),
    "resnet": ("ResNetForImageClassification", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
                                                "layer_type": "basic"}, {"pixel_values"}),
    "whisper": ("WhisperForConditionalGeneration", SPEECH, {"input_features", "decoder_input_ids"}),
    "clip": ("CLIPModel", {"text_config": {**TEXT, "max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": 2},
                           "vision_config": IMAGE, "projection_dim": 16}, {"input_ids", "pixel_values"}),
    "wav2vec2": ("Wav2Vec2Model", {**TEXT, "conv_dim": [16, 16], "conv_stride": [5, 4], "conv_kernel": [10, 8],
                                   "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4,
                                   "num_conv_pos_embedding_groups": 2}, {"input_values"}),
    "mixtral": ("MixtralForCausalLM", {**TEXT, "num_key_value_heads": 1, "num_local_experts": 4,
                                       "max_position_embeddings": 40}, {"input_ids"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_runs_and_traces_on_its_inputs(kind: str, tmp_path: Path) -> None:
    import transformers

    name, fields, expected = KINDS[kind]
    config = transformers.AutoConfig.for_model(kind, **fields)
    config.architectures = [name]
    config.save_pretrained(tmp_path)

    sample = open_model(str(tmp_path)).skeleton()
    assert type(sample.model).__name__ == name
    assert set(sample.kwargs) - {"use_cache", "token_type_ids"} == expected
    torch.manual_seed(0)
    output = getattr(transformers, name)(config).eval()(**sample.kwargs)
    assert all(torch.isfinite(value).all() for value in output.values() if isinstance(value, torch.Tensor))
    with posing_as_cpu(sample.model):
        program = torch.export.export(sample.model, sample.args, sample.kwargs, strict=False)
    assert any(node.op == "output" for node in program.graph.nodes)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5", "whisper"])
def test_lengths_are_primes_that_divide_no_size(kind: str) -> None:
    import transformers

    config = transformers.AutoConfig.for_model(kind, **KINDS[kind][1])
    batch, length, target = lengths(config)
    assert len({batch, length, target}) == 3
    sizes = {n for n in numbers(json.loads(config.to_json_string())) if n > 1}
    for n in (batch, length, target):
        assert n > 2 and all(n % k for k in range(2, n)) and all(size % n for size in sizes)


def test_preprocessor_gives_the_image_size(tmp_path: Path) -> None:
    import transformers

    name, fields, _ = KINDS["resnet"]
    config = transformers.AutoConfig.for_model("resnet", **fields)
    config.architectures = [name]
    config.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 48, "width": 40}}))
    assert open_model(str(tmp_path)).skeleton().kwargs["pixel_values"].shape[-2:] == (48, 40)
