"""The types that are not causal language models: encoders, encoder-decoders, vision, audio, several modalities."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from regauge.checkpoint.shrink import config_nodes

from .build import Observed, Subject, causal_types, make_model, randomise, tiny_config, vocabulary
from .inputs import SEQUENCE, token_ids
from .replace import repaired

BATCH = 3
PREFERRED = (  # the head that a type is best known by comes first
    "SEQ_TO_SEQ_CAUSAL_LM",
    "SPEECH_SEQ_2_SEQ",
    "MASKED_LM",
    "IMAGE_CLASSIFICATION",
    "CTC",
    "AUDIO_CLASSIFICATION",
    "SEMANTIC_SEGMENTATION",
    "OBJECT_DETECTION",
    "DEPTH_ESTIMATION",
    "IMAGE_TO_IMAGE",
    "ZERO_SHOT_IMAGE_CLASSIFICATION",
    "VIDEO_CLASSIFICATION",
    "MASKED_IMAGE_MODELING",
    "IMAGE_TEXT_TO_TEXT",
    "TEXT_ENCODING",
    "TIME_SERIES_PREDICTION",
    "TEXT_TO_SPECTROGRAM",
    "TEXT_TO_WAVEFORM",
    "SEQUENCE_CLASSIFICATION",
    "KEYPOINT_DETECTION",
    "BACKBONE",
)


def other_types() -> dict[str, str]:
    """Registered types with the class that is surveyed. Types of the causal table are here again when they are
    encoders or encoder-decoders by birth."""
    tables = [getattr(modeling_auto, f"MODEL_FOR_{k}_MAPPING_NAMES", {}) for k in PREFERRED]
    tables.append(modeling_auto.MODEL_MAPPING_NAMES)
    causal, chosen = set(causal_types()), {}
    for name in CONFIG_MAPPING_NAMES:
        classes = next((t[name] for t in tables if name in t), None)
        if name in causal:
            classes = next((t[name] for t in tables[:3] if name in t), None)
        if classes is not None:
            chosen[name] = classes if isinstance(classes, str) else classes[0]
    return chosen


def build_other(name: str, *, seed: int = 0, attention: str | None = None, **sizes: int) -> Subject:
    cls = getattr(transformers, other_types()[name])
    config = tiny_config(name, cls, **sizes)
    with repaired():
        model = make_model(cls, config, attention)
    randomise(model, torch.Generator().manual_seed(seed))
    return Subject(name, Observed(model).eval(), (), other_inputs(model, config, seed), vocabulary(config))


def other_inputs(model: Any, config: Any, seed: int) -> dict[str, Any]:
    """Inputs by the names in the signature of ``forward``, sized by the configuration."""
    names = inspect.signature(model.forward).parameters
    rng = torch.Generator().manual_seed(seed + 1)
    inputs: dict[str, Any] = {}
    if "input_ids" in names:
        inputs["input_ids"] = token_ids(config, seed, batch=BATCH)
    if "decoder_input_ids" in names:
        inputs["decoder_input_ids"] = token_ids(config, seed + 1, batch=BATCH, sequence=SEQUENCE - 2)
    if "pixel_values" in names:
        inputs["pixel_values"] = torch.randn(_image_shape(config), generator=rng)
    if "pixel_values_videos" in names and "pixel_values" not in names:
        batch, *image = _image_shape(config)
        frames = _find(config, "num_frames", "frames_per_clip", default=4)
        inputs["pixel_values_videos"] = torch.randn(batch, frames, *image)
    if "input_values" in names:
        bins = _find(config, "num_mel_bins", default=0)
        shape = (BATCH, _find(config, "max_length", default=64), bins) if bins else (BATCH, 2000)
        inputs["input_values"] = torch.randn(shape, generator=rng)
    if "input_features" in names:
        bins = _find(config, "num_mel_bins", "input_feat_size", "feature_size", default=16)
        length = 2 * _find(config, "max_source_positions", default=16)
        whole = "max_source_positions" in _fields(config)
        inputs["input_features"] = torch.randn((BATCH, bins, length) if whole else (BATCH, length, bins), generator=rng)
    if not inputs and "past_values" in names:
        inputs["past_values"] = torch.randn(
            BATCH,
            _find(config, "context_length", default=16),
            _find(config, "num_input_channels", default=1),
            generator=rng,
        )
    return inputs


def _image_shape(config: Any) -> tuple[int, ...]:
    size = _find(config, "image_size", "input_size", default=64)
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return (BATCH, _find(config, "num_channels", "in_chans", "in_channels", default=3), height, width)


def _fields(config: Any) -> dict[str, Any]:
    return {k: v for node in reversed(list(config_nodes(config))) for k, v in vars(node).items()}


def _find(config: Any, *names: str, default: Any) -> Any:
    fields = _fields(config)
    return next((fields[n] for n in names if isinstance(fields.get(n), (int, list, tuple)) and fields[n]), default)
