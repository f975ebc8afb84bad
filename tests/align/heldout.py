"""Families, seeds and pairs that no threshold of `diff` or `match` was chosen on.

Positives: an element of the whole group, the product of two, in float32 and bfloat16; relatives: the same after training,
pruning, quantising. Negatives, the hard ones included: two initialisations of one architecture, as their library makes
them (gains at one, biases at zero: many numbers agree), the same trained apart on one task, and generic weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn

import regauge
from regauge.check.generic import randomise
from regauge.jobs.fingerprint import shortened
from regauge.solve.gauge import Gauge
from tests.align.changes import nudged, pruned, quantised, stored

State = dict[str, Tensor]

SIZES: dict[str, Any] = {"vocab_size": 71, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
WIDE: dict[str, Any] = {**SIZES, "intermediate_size": 40, "max_position_embeddings": 24}
ALONE: dict[str, Any] = {**WIDE, "num_key_value_heads": 1, "pad_token_id": 0}


def _build() -> dict[str, Any]:
    return {
        "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**ALONE)),
        "phi": lambda: tf.PhiForCausalLM(tf.PhiConfig(**{**ALONE, "num_key_value_heads": 3})),
        "stablelm": lambda: tf.StableLmForCausalLM(tf.StableLmConfig(**ALONE)),
        "olmo2": lambda: tf.Olmo2ForCausalLM(tf.Olmo2Config(**ALONE)),
        "granite": lambda: tf.GraniteForCausalLM(tf.GraniteConfig(**ALONE)),
        "starcoder2": lambda: tf.Starcoder2ForCausalLM(tf.Starcoder2Config(**ALONE)),
        "bloom": lambda: tf.BloomForCausalLM(tf.BloomConfig(vocab_size=71, hidden_size=32, n_layer=2, n_head=4)),
        "distilbert": lambda: tf.DistilBertForMaskedLM(
            tf.DistilBertConfig(vocab_size=71, dim=24, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=24)
        ),
        "electra": lambda: tf.ElectraForSequenceClassification(tf.ElectraConfig(**WIDE, embedding_size=24)),
        "deit": lambda: tf.DeiTForImageClassification(
            tf.DeiTConfig(
                hidden_size=24,
                num_hidden_layers=2,
                num_attention_heads=3,
                intermediate_size=40,
                image_size=16,
                patch_size=4,
            )
        ),
    }


FAMILIES = tuple(_build())


def inputs(name: str, seed: int = 0, batch: int = 5) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    if name == "deit":
        return {"pixel_values": torch.randn(batch, 3, 16, 16, generator=generator)}
    return {"input_ids": torch.randint(0, 71, (batch, 9), generator=generator)}


def build(name: str, seed: int, generic: bool) -> nn.Module:
    """generic: all numbers at random; otherwise as the library initialises them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = _build()[name]().eval()
    model.config.use_cache = False  # type: ignore[union-attr]
    if generic:
        randomise(model, torch.Generator().manual_seed(seed))
    return model


def trained(name: str, model: nn.Module, task: int, *, steps: int, rate: float) -> State:
    """The weights after some steps of Adam towards a fixed random function of the inputs; the model is left as it was."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    for step in range(steps):
        batch = inputs(name, seed=1000 * task + step % 4)
        y = model(**batch)
        y = y.logits if hasattr(y, "logits") else y[0]
        target = torch.randn(y.shape, generator=torch.Generator().manual_seed(1000 * task + step % 4))
        loss = (y - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    after = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.load_state_dict(before)
    return after


@dataclass(frozen=True)
class Pair:
    """relation: what is true of it: "equal", "derived" or "unrelated"."""

    relation: str
    what: str
    a: State
    b: State


def gauge_of(name: str) -> Gauge:
    return regauge.infer(build(name, 0, True), (), shortened(inputs(name)))


def pairs(name: str, gauge: Gauge, seed: int) -> Iterator[Pair]:
    model = build(name, seed, True)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    g, h = gauge.sample(10 * seed + 1), gauge.sample(10 * seed + 2)
    for dtype in (torch.float32, torch.bfloat16):
        a, text = stored(state, dtype), str(dtype).removeprefix("torch.")
        yield Pair("equal", f"one element, {text}", a, g.apply(a))
        yield Pair("equal", f"product of two, {text}", a, stored((g @ h).apply(stored(state, torch.float64)), dtype))
    made = build(name, seed, False)
    plain = {k: v.clone() for k, v in made.state_dict().items()}
    yield Pair("equal", "as initialised, one element", plain, g.apply(plain))
    yield Pair("derived", "5 steps of training", state, g.apply(trained(name, model, 1, steps=5, rate=1e-3)))
    yield Pair("derived", "1 step, small", state, g.apply(trained(name, model, 1, steps=1, rate=1e-5)))
    a, single = stored(state, torch.float32), max(state, key=lambda k: state[k].numel())
    yield Pair("derived", "8 roundings", a, g.apply(nudged(a, 8.0)))
    yield Pair("derived", "24 roundings, one tensor", a, g.apply(nudged(a, 24.0, single)))
    yield Pair("derived", "half pruned", state, g.apply(pruned(state)))
    yield Pair("derived", "4 bits", state, g.apply(quantised(state)))
    other = build(name, seed + 50, True)
    yield Pair("unrelated", "generic, other seed", state, other.state_dict())
    apart = build(name, seed + 50, False)
    yield Pair("unrelated", "as initialised, other seed", plain, apart.state_dict())
    one, two = (trained(name, m, 2, steps=60, rate=3e-3) for m in (made, apart))
    yield Pair("unrelated", "trained apart on one task", one, two)
