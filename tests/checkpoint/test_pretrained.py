"""Opening Hugging Face directories: what comes out equals what transformers makes, and damage is told in one
sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from regauge.checkpoint import open_model
from regauge.errors import InputError


def test_loaded_equals_what_transformers_loads(saved: Path) -> None:
    from transformers import AutoModelForCausalLM

    sample = open_model(str(saved)).loaded()
    expected = AutoModelForCausalLM.from_pretrained(saved)
    ids = sample.kwargs["input_ids"]
    assert torch.equal(sample.model(**sample.kwargs).logits, expected(ids).logits)
    assert sample.notes == ()
    assert not sample.model.training


def test_skeleton_holds_no_weights_but_true_shapes_ties_and_tables(saved: Path) -> None:
    skeleton, loaded = open_model(str(saved)).skeleton().model, open_model(str(saved)).loaded().model
    assert all(p.is_meta for p in skeleton.parameters())
    assert {n: p.shape for n, p in skeleton.named_parameters()} == {n: p.shape for n, p in loaded.named_parameters()}
    assert skeleton.get_input_embeddings().weight is skeleton.get_output_embeddings().weight
    buffers = dict(loaded.named_buffers())
    assert buffers
    for name, buffer in skeleton.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_building_on_meta_leaves_torch_as_it_was(saved: Path) -> None:
    open_model(str(saved)).skeleton()
    assert torch.nn.Linear(2, 2).weight.device.type == "cpu"


def test_shards_give_the_same_model(saved: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(saved).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    whole, sharded = open_model(str(saved)).loaded(), open_model(str(tmp_path)).loaded()
    assert torch.equal(whole.model(**whole.kwargs).logits, sharded.model(**sharded.kwargs).logits)


def test_half_precision_stays(saved: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(saved).to(torch.bfloat16).save_pretrained(tmp_path)
    opened = open_model(str(tmp_path))
    for sample in (opened.loaded(), opened.skeleton()):
        assert {p.dtype for p in sample.model.parameters()} == {torch.bfloat16}


def test_sample_sizes_collide_with_nothing(saved: Path) -> None:
    batch, length = open_model(str(saved)).skeleton().kwargs["input_ids"].shape
    sizes = {n for n in json.loads((saved / "config.json").read_text()).values() if type(n) is int and n > 1}
    assert batch != length
    assert all(n % batch and n % length for n in sizes)


def refuse(path: Path, *words: str, way: str = "loaded") -> None:
    with pytest.raises(InputError) as caught:
        getattr(open_model(str(path)), way)()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in (str(path), *words)), message


def test_missing_path(tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere", "no such file or directory")


def test_hub_name_says_how_to_download() -> None:
    with pytest.raises(InputError, match="hf download some-org/some-model"):
        open_model("some-org/some-model")


def test_directory_without_a_model(tmp_path: Path) -> None:
    refuse(tmp_path, "neither config.json nor a .gguf")


def test_config_without_weights(copy_of_saved: Path) -> None:
    (copy_of_saved / "model.safetensors").unlink()
    refuse(copy_of_saved, "no weights", "regauge inspect")
    assert open_model(str(copy_of_saved)).skeleton().model is not None


def test_pickled_weights_are_not_read(copy_of_saved: Path) -> None:
    (copy_of_saved / "model.safetensors").rename(copy_of_saved / "pytorch_model.bin")
    refuse(copy_of_saved, "pickled", "safe_serialization")


@pytest.mark.parametrize("keep", [0, 5, 200, -100])
def test_truncated_safetensors(copy_of_saved: Path, keep: int) -> None:
    file = copy_of_saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refuse(copy_of_saved, "truncated", "download it again")


def test_garbled_safetensors_header(copy_of_saved: Path) -> None:
    file = copy_of_saved / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[8:40] = b"\xff" * 32
    file.write_bytes(bytes(data))
    refuse(copy_of_saved, "header", "download")


def test_missing_shard(saved: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(saved).save_pretrained(tmp_path, max_shard_size="20KB")
    gone = sorted(tmp_path.glob("*.safetensors"))[1]
    gone.unlink()
    refuse(tmp_path, gone.name, "missing")


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_nan_weights(copy_of_saved: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    rewrite(copy_of_saved, lambda tensors: tensors[name][3].fill_(float("nan")))
    refuse(copy_of_saved, name, "48 of 1,536", "[3, 0]")


def test_mismatched_shapes(copy_of_saved: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(copy_of_saved, lambda tensors: tensors.update({name: torch.zeros(40, 32)}))
    refuse(copy_of_saved, name, "[40, 32]", "[48, 32]")


def test_missing_tensor(copy_of_saved: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(copy_of_saved, lambda tensors: tensors.pop(name))
    refuse(copy_of_saved, name, "in no file")


def test_tensor_that_the_model_does_not_know_is_noted(copy_of_saved: Path) -> None:
    rewrite(copy_of_saved, lambda tensors: tensors.update({"extra.weight": torch.zeros(2)}))
    assert "extra.weight" in open_model(str(copy_of_saved)).loaded().notes[0]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": "no-such-model"}'])
def test_bad_config(copy_of_saved: Path, text: str) -> None:
    (copy_of_saved / "config.json").write_text(text)
    refuse(copy_of_saved, "config.json", way="skeleton")


def test_impossible_config(copy_of_saved: Path) -> None:
    config = json.loads((copy_of_saved / "config.json").read_text())
    (copy_of_saved / "config.json").write_text(json.dumps({**config, "hidden_act": "no-such-function"}))
    refuse(copy_of_saved, "cannot be built", way="skeleton")


def test_truncated_gguf(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00\x10")
    refuse(tmp_path, "model.gguf", way="skeleton")


def test_several_gguf_files_ask_for_one(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    refuse(tmp_path, "name one of them")
