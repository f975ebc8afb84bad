"""Build one type tiny: a model with random generic weights, and inputs for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from regauge.checkpoint.shrink import config_nodes, shrink_config

from .inputs import causal_inputs
from .overrides import AFTER, BEFORE
from .replace import repaired


@dataclass(frozen=True)
class Subject:
    """What is surveyed: a model in evaluation mode, and one set of inputs."""

    name: str
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    vocabulary: int = 0  # tokens that inputs may hold, where they are tokens


class Observed(nn.Module):
    """A model whose only output is the observable: logits, or the last hidden state where there are none."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Tensor:
        return observable(self.model(**inputs))


def observable(output: Any) -> Tensor:
    """The tensor of a model's output that users read."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)):
        return observable(output[0])
    for name in ("logits", "last_hidden_state", "logits_per_image", "prediction_logits", "reconstruction"):
        if isinstance(getattr(output, name, None), Tensor):
            return getattr(output, name)
    whole = next((v for v in output.values() if isinstance(v, Tensor)), None)
    return observable(next(iter(output.values()))) if whole is None else whole


def causal_types() -> tuple[str, ...]:
    return tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def build_causal(name: str, *, seed: int = 0, attention: str | None = None, **sizes: int) -> Subject:
    """The causal language model of a registered type, tiny and generic."""
    cls = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name])
    config = tiny_config(name, cls, **sizes)
    for node in config_nodes(config):
        if "is_decoder" in vars(node) and not vars(node).get("is_encoder_decoder"):
            node.is_decoder = True
    with repaired():
        model = make_model(cls, config, attention)
    randomise(model, torch.Generator().manual_seed(seed))
    inputs = causal_inputs(name, config, seed)
    subject = Subject(name, Observed(model).eval(), (), inputs, vocabulary(config))
    with torch.no_grad():
        subject.model(**inputs)  # types that rescale their weights in place do so at the first run
    return replace(subject, vocabulary=rows_read(subject))


def vocabulary(config: Any) -> int:
    sizes = [vars(n)["vocab_size"] for n in config_nodes(config) if type(vars(n).get("vocab_size")) is int]
    return min(sizes, default=0)


def rows_read(subject: Subject) -> int:
    """How many tokens inputs may hold: all rows of the table that they read, where it has more than the configuration
    says (for padding, or for images)."""
    tables = {m.num_embeddings for m in subject.model.modules() if isinstance(m, nn.Embedding)}
    for rows in sorted((n for n in tables if n > subject.vocabulary > 0), reverse=True):
        if "input_ids" in subject.kwargs and _reads(subject.model, subject.kwargs, rows - 1):
            return rows
    return subject.vocabulary


def _reads(model: nn.Module, inputs: dict[str, Any], token: int) -> bool:
    tokens = inputs["input_ids"].clone()
    tokens[:, 0] = token
    try:
        with torch.no_grad():
            model(**inputs | {"input_ids": tokens})
    except (ValueError, IndexError, RuntimeError):
        return False
    return True


def tiny_config(name: str, cls: type, **sizes: int) -> Any:
    """The default configuration of a type, shrunk, with the exceptions of its type."""
    full = CONFIG_MAPPING[name](**BEFORE.get(name, {}))
    wanted = getattr(cls, "config_class", None)
    if wanted is not None and not isinstance(full, wanted):
        full = next((n for n in config_nodes(full) if isinstance(n, wanted)), None) or wanted(**BEFORE.get(name, {}))
    small = shrink_config(full, **sizes)
    for path, value in AFTER.get(name, {}).items():
        *parents, last = path.split(".")
        node = small
        for parent in parents:
            node = getattr(node, parent)
        vars(node)[last] = value(small) if callable(value) else value
    return small


def make_model(cls: type, config: Any, attention: str | None = None) -> nn.Module:
    """A model from its configuration: experts in one batched product, attention as the library chooses."""
    options = {"attn_implementation": attention} if attention else {}
    config._experts_implementation = "batched_mm"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if hasattr(cls, "_from_config"):
            return cls._from_config(config, dtype=torch.float32, **options).eval()
        return cls(config).eval()


def randomise(model: nn.Module, rng: torch.Generator) -> None:
    """Generic weights: matrices of unit gain, vectors moved away from their start (gains off one, biases off zero)."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for parameter in dict.fromkeys(model.parameters()):
            if not parameter.is_floating_point():
                continue
            noise = torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype)
            if parameter.dim() >= 2:
                fan_in = math.prod(parameter.shape[1:]) if parameter.dim() != 3 else min(parameter.shape[1:])
                scale = 0.5 if id(parameter) in embeddings else 1 / math.sqrt(max(1, fan_in))
                parameter.copy_(scale * noise)
            else:
                start = torch.nan_to_num(parameter, nan=0.0, posinf=1.0, neginf=-1.0).clamp(-5, 5)
                parameter.copy_(start + 0.3 * noise)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=rng))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=rng))


def token_rows(tokens: Tensor, rng: torch.Generator, vocabulary: int = 0) -> Tensor:
    """Other tokens of the same shape, special ones included; from the range of the given ones where there is no
    vocabulary."""
    return torch.randint(vocabulary or int(tokens.max()) + 1, tokens.shape, generator=rng)
