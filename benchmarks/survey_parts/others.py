"""The types that are not causal language models: encoders, encoder-decoders, vision, audio, several modalities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from .build import Observed, Subject, causal_types, make_model, randomise, tiny_config, vocabulary
from .modalities import candidates, with_placeholders
from .replace import repaired

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
    observed = Observed(model).eval()
    return Subject(name, observed, (), accepted(observed, candidates(model, config, seed)), vocabulary(config))


def accepted(model: Any, offers: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The first inputs that the model runs on; the error of the first where it runs on none.

    A model that misses placeholders in its tokens says how many: they are put in.
    """
    first: Exception | None = None
    for inputs in offers:
        for _ in range(2):
            try:
                with torch.no_grad():
                    model(**inputs)
                return inputs
            except Exception as error:
                first = first or error
                more = with_placeholders(model.model.config, inputs, str(error))
                if more is None:
                    break
                inputs = more
    raise first or ValueError("the model takes no input that this survey makes")
