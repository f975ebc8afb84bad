"""Example inputs for a model of the transformers library, read off its configuration and its signature.

Batch, sequence and time lengths are distinct primes that divide no number of the configuration: an axis of the sample
then has a size that no axis of the model has, even after heads and blocks are cut from it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from regauge.checkpoint.weights import read_json
from regauge.errors import InputError

PRIMES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
IMAGE_SIZE = 64  # where neither the configuration nor the preprocessor fixes one
SPECIAL = ("pad", "bos", "eos", "unk", "image", "decoder_start")
AUDIO_SAMPLES = 4001  # a prime; a quarter of a second


def example_inputs(model: Any, folder: Path | None = None, *, whole: bool = False, seed: int = 0) -> dict[str, Any]:
    """Keyword arguments for `model.forward`, on the CPU: the main input and nothing that may be left out.

    No attention mask is given, so no token is padding. `whole`: the first and the last token occur and every position,
    so that inputs drawn anew within the example's range read every row of the embeddings. Raises InputError where the
    main input is of an unknown kind."""
    config = model.config
    accepted = set(inspect.signature(model.forward).parameters)
    batch, length, target_length = lengths(config, whole)
    generator = torch.Generator().manual_seed(seed)
    main = model.main_input_name
    inputs: dict[str, Any] = {}

    if main == "input_ids":
        inputs[main] = tokens(config, batch, length, generator)
        if needs_an_image_too(model, accepted):
            inputs["pixel_values"] = pixels(config, batch, folder, generator)
    elif main == "pixel_values":
        inputs[main] = pixels(config, batch, folder, generator)
    elif main in ("input_features", "input_values"):
        inputs[main] = sound(config, main, batch, generator)
    else:
        raise InputError(
            f"{type(model).__name__}: regauge cannot make up the input {main}: give package.module:factory, a "
            "function that returns the model and example inputs"
        )
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in accepted:
        inputs["decoder_input_ids"] = tokens(config, batch, target_length, generator)
    for ids in inputs.values() if whole else ():
        if not ids.is_floating_point():
            ids.view(-1)[0], ids.view(-1)[-1] = 0, vocabulary_size(config) - 1
    if main == "input_ids" and "token_type_ids" in accepted and (find(config, "type_vocab_size") or 0) > 1:
        kinds = torch.arange(batch * length).reshape(batch, length) % find(config, "type_vocab_size")
        inputs["token_type_ids"] = kinds
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs


def lengths(config: Any, whole: bool = False) -> tuple[int, int, int]:
    """Batch, sequence and target length: distinct primes that divide no size of the configuration, the last two within
    the model's positions. `whole`: the sequence is as long as there are positions."""
    limits = set(positions(config))
    longest = min(limits, default=PRIMES[-1])
    sizes = {n for n in numbers(config.to_dict()) if n > 1}
    batch, *free = [p for p in PRIMES if all(n % p for n in sizes)]
    fitting = [p for p in free if batch + 2 < p <= longest]
    fitting += [p for p in (11, 13, 7, 5, 3, 2) if p <= longest and p not in (batch, *fitting)]
    if whole and limits:
        fitting = [longest, *(p for p in fitting if p != longest)]
    return batch, fitting[0], fitting[min(1, len(fitting) - 1)]


def numbers(value: Any) -> Iterator[int]:
    """Every integer in a nested configuration."""
    match value:
        case bool():
            return
        case int():
            yield value
        case dict():
            for item in value.values():
                yield from numbers(item)
        case list() | tuple():
            for item in value:
                yield from numbers(item)


def positions(config: Any) -> Iterator[int]:
    for part in (config, config.get_text_config()):
        for name in ("max_position_embeddings", "n_positions", "max_target_positions"):
            value = getattr(part, name, None)
            if isinstance(value, int) and value > 0:
                yield value


def find(config: Any, *names: str) -> Any:
    """The first of these attributes that the configuration or one of its parts has."""
    parts = [config, *(getattr(config, key, None) for key in getattr(config, "sub_configs", {}))]
    return next((value for part in parts for name in names if (value := getattr(part, name, None)) is not None), None)


def vocabulary_size(config: Any) -> int:
    return find(config.get_text_config(), "vocab_size") or find(config, "vocab_size")


def tokens(config: Any, batch: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Token ids that avoid the special ones, which some heads look for."""
    special = {
        getattr(config, f"{kind}_token_id", None) for kind in ("pad", "bos", "eos", "unk", "image", "decoder_start")
    }
    ordinary = torch.tensor([i for i in range(vocabulary_size(config)) if i not in special][: 1 << 20])
    ids = ordinary[torch.randint(len(ordinary), (batch, length), generator=generator)]
    return ids


def needs_an_image_too(model: Any, accepted: set[str]) -> bool:
    """Models that generate text run on text alone; those that compare or classify need the image."""
    return "pixel_values" in accepted and not model.can_generate()


def pixels(config: Any, batch: int, folder: Path | None, generator: torch.Generator) -> torch.Tensor:
    channels = find(config, "num_channels", "in_channels", "in_chans") or 3
    size = find(config, "image_size", "crop_size") or preprocessor_size(folder) or IMAGE_SIZE
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    frames = find(config, "num_frames")
    shape = (batch, frames, channels, height, width) if frames else (batch, channels, height, width)
    return torch.randn(shape, generator=generator)


def preprocessor_size(folder: Path | None) -> Any:
    if folder is None or not (folder / "preprocessor_config.json").is_file():
        return None
    settings = read_json(folder / "preprocessor_config.json")
    size = settings.get("crop_size") or settings.get("size")
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        return (size["height"], size["width"]) if {"height", "width"} <= set(size) else edge
    return size


def sound(config: Any, name: str, batch: int, generator: torch.Generator) -> torch.Tensor:
    """A spectrogram (batch, bins, frames) or (batch, frames, bins), or a wave form (batch, samples)."""
    bins = find(config, "num_mel_bins", "input_feat_per_channel", "feature_size")
    shape: tuple[int, ...]
    if name == "input_features" and bins:
        frames = find(config, "max_source_positions")
        convolutional = find(config, "input_feat_per_channel") is None and frames is not None
        shape = (batch, bins, 2 * frames) if convolutional else (batch, 97, bins)
    elif bins and (frames := find(config, "max_length")):
        shape = (batch, frames, bins)
    else:
        shape = (batch, AUDIO_SAMPLES)
    return torch.randn(shape, generator=generator)
