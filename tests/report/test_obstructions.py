"""What is said to break the rest, for eleven families: the break, its place, and dimensions by closed formulas."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import transformers
from tests.zoo.language import F, V, built, gpt2_dim, llama_dim, neox_dim
from tests.zoo.registry import Call, load
from torch import Tensor, nn

import regauge

ZOO = load()
SIZES = {
    "vocab_size": V,
    "hidden_size": 8,
    "intermediate_size": F,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 32,
    "use_cache": False,
    "pad_token_id": None,
}
OTHERS = {  # normed queries and keys, sandwich norms, a mixture of experts
    "qwen3": lambda: built(transformers.Qwen3Config(**SIZES), "Qwen3ForCausalLM"),
    "gemma2": lambda: built(transformers.Gemma2Config(**SIZES), "Gemma2ForCausalLM"),
    "mixtral": lambda: built(
        transformers.MixtralConfig(**SIZES, num_local_experts=3, experts_implementation="batched_mm"),
        "MixtralForCausalLM",
    ),
}


@dataclass(frozen=True)
class Said:
    """One line that must be there. words: of its text. place: of its source. cost: what lifting it costs. gain: gives."""

    words: tuple[str, ...]
    place: str
    cost: str
    gain: int


def rotation(d: int) -> int:
    return d * (d - 1) // 2


def general(d: int) -> int:
    """From O(d) to GL(d)."""
    return d * d - rotation(d)


# LayerNorm: O(d - 1) and, without dividing, GL(d - 1). Where the last gain is one, that norm's shift can go into the means
# of a tied embedding's rows: d more
FAMILIES: dict[str, list[Said]] = {
    "llama-gqa-tied": [
        Said(("embed_tokens.weight is tied", "Z2 wr S8 instead of O(8)"), "aten.linear in lm_head",
             f"untie: + {8 * V} parameters", llama_dim(2, 8, 4, 2, False) - llama_dim(2, 8, 4, 2, True)),
        Said(("gain model.norm.weight", "instead of O(8)"), "model.norm", "- 8 parameters", rotation(8)),
        Said(("rotary", "C*^2", "instead of GL(4)"), "self_attn", "without rotations", 2 * 2 * (4 * 4 - 4)),
        Said(("softmax",), "scaled_dot_product_attention", "scale", 2 * 4),
        Said(("R* wr S11", "silu and a product"), "mlp.act_fn", "", 0),
    ],
    "llama-mha": [
        Said(("O(8) instead of GL(8)", "norms, x . x"), "input_layernorm", "without", general(8)),
        Said(("rotary",), "self_attn", "without rotations", 2 * 2 * (4 * 4 - 4)),
    ],
    "gpt2-tied": [
        Said(("wte.weight is tied", "instead of O(5)"), "lm_head", f"untie: + {6 * V} parameters",
             gpt2_dim(False) - gpt2_dim(True)),
        Said(("gain transformer.ln_f.weight", "instead of O(5)"), "ln_f", "- 6 parameters", rotation(5) + 6),
    ],
    "gpt2": [Said(("O(5) instead of GL(5)", "norms, x . x"), "ln_1", "without", general(5))],
    "bert-mlm-tied": [
        Said(("post-norm", "instead of O(5)"), "bert.embeddings.LayerNorm", "untied, fix at one", rotation(5) - 6),
        # rows of embedding and head; tokens against positions; the gain before the head: one of them the tied model has too
        Said(("word_embeddings.weight is tied",), "cls.predictions.decoder", f"untie: + {6 * V} parameters",
             2 * V + 5 + 6 - 1),
    ],
    "bert-classifier": [  # the pooler takes up the fifth gain
        Said(("post-norm", "instead of O(5)"), "LayerNorm", "fix at one: - 24 parameters", rotation(5)),
    ],
    "opt": [
        Said(("embed_tokens.weight is tied",), "lm_head", "untie", gpt2_dim(False) - gpt2_dim(True)),
        Said(("gain model.decoder.final_layer_norm.weight",), "final_layer_norm", "fix at one", rotation(5) + 6),
        Said(("R+ wr S11", "relu"), "activation_fn", "", 0),
    ],
    "neox-sequential": [
        Said(("rotary", "C*"), "attention", "without rotations",
             neox_dim(False, r=0) - neox_dim(False, r=2)),
        Said(("O(7) instead of GL(7)",), "input_layernorm", "without", general(7)),
    ],
    "vit": [Said(("O(5) instead of GL(5)",), "layernorm_before", "without", general(5))],
    "t5": [  # each stack has a stream of its own, and their norms' gains but the last go into readers
        Said(("shared.weight is tied", "instead of O(6)"), "decoder.embed_tokens", f"untie: + {2 * 6 * V} parameters",
             2 * rotation(6) + 6),
        Said(("gain decoder.final_layer_norm.weight",), "decoder.final_layer_norm", "- 6 parameters", rotation(6)),
        # scores without a learned table of positions
        Said(("softmax", "GL(3) wr S2"), "EncDecAttention", "scale", 2 * 2),
    ],
    "qwen3": [  # scales of planes, shared by groups, against rotations of planes, one for each group
        Said(("q_norm.weight", "k_norm.weight", "meet"), "self_attn.q_norm", "fix at one: - 16 parameters",
             2 * (2 * 2 - 2)),
        Said(("O(8) instead of GL(8)",), "input_layernorm", "without", general(8)),
    ],
    "gemma2": [
        Said(("post_attention_layernorm", "post-norm", "Z2 wr S8 instead of O(8)"), "post_feedforward_layernorm",
             f"fix at one: - {5 * 8} parameters", rotation(8)),
        Said(("embed_tokens.weight is tied",), "lm_head", f"untie: + {8 * V} parameters", 8),
        Said(("rotary",), "self_attn", "without rotations", 2 * 2 * (4 * 4 - 4)),
    ],
    "mixtral": [
        Said(("rotary",), "self_attn", "without rotations", 2 * 2 * (4 * 4 - 4)),
        Said(("O(8) instead of GL(8)",), "input_layernorm", "without", general(8)),
        Said(("softmax fixes", "S3"), "mlp.gate", "scale", 2),
        Said(("R* wr S11", "silu and a product"), "mlp.experts", "", 0),
    ],
    "resnet-basic": [Said(("relu acts entry by entry", "R* wr S"), "aten.relu in resnet", "", 0)],
}  # fmt: skip
QUICK = ("llama-gqa-tied", "gpt2-tied", "bert-classifier", "gemma2")


def said(name: str) -> tuple[regauge.Gauge, list[Said]]:
    call: Call = ZOO[name].make() if name in ZOO else OTHERS[name]()
    return regauge.infer(call.model, call.args, call.kwargs, observe=call.observe), FAMILIES[name]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in FAMILIES])
def test_families(name: str) -> None:
    gauge, expected = said(name)
    found = gauge.obstructions
    order = [(o.rank, -o.lost) for o in found]
    assert order == sorted(order) and all((o.rank == 2) == (o.lost == 0) for o in found)
    assert len({(o.bond, o.text) for o in found}) == len(found) <= 8
    for line in expected:
        fitting = [o for o in found if all(w in o.text for w in line.words)]
        assert len(fitting) == 1, f"{line.words} in\n" + "\n".join(map(str, found))
        (o,) = fitting
        assert line.place in o.source and line.cost in o.cost, str(o)
        assert o.lost == line.gain, f"expected {line.gain}: {o}"
        assert ("dimensions" in o.cost) == (line.gain > 0)
        assert "\n" not in str(o)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tied", "untied"), [("llama-mqa-tied", "llama-mqa"), ("gpt2-tied", "gpt2"), ("qwen2-tied", "qwen2")]
)
def test_untying_gives_what_the_untied_model_has(tied: str, untied: str) -> None:
    gauges = [
        regauge.infer(c.model, c.args, c.kwargs, observe=c.observe) for c in (ZOO[tied].make(), ZOO[untied].make())
    ]
    (tie,) = [o for o in gauges[0].obstructions if "is tied" in o.text]
    assert tie.lost == gauges[1].dim - gauges[0].dim


class Stream(nn.Module):
    """Two linear layers on a stream, with a choice of what breaks its group."""

    def __init__(self, choice: str) -> None:
        super().__init__()
        self.choice = choice
        self.into, self.deep, self.out = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.gain = nn.Parameter(torch.randn(6))
        self.register_buffer("table", torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        match self.choice:
            case "table":
                x = x + self.table
            case "gate":
                x = x + torch.tanh(x)
            case "layer scale":
                x = x + self.gain * self.deep(x)
            case "gain on the way":
                x = x + self.gain * x
            case "shared":
                x = x + torch.relu(self.deep(torch.relu(self.deep(x))))
        return self.out(x)


def stream(choice: str) -> list[regauge.solve.obstructions.Obstruction]:
    return list(regauge.infer(Stream(choice), (torch.randn(2, 5, 3),)).obstructions)


def test_nothing_breaks_a_linear_chain() -> None:
    assert stream("none") == []


def test_a_fixed_table_could_be_learned() -> None:
    (o,) = stream("table")
    assert "S1" not in o.text and "instead of GL(6)" in o.text and "a fixed table of 5x6" in o.text
    assert o.cost.startswith("learn it: + 30 parameters, + ")
    assert "aten.add.Tensor" in o.source and "test_obstructions.py" in o.source


def test_a_gate_on_the_stream_is_named() -> None:
    (o,) = stream("gate")
    assert "tanh acts entry by entry" in o.text and "aten.tanh" in o.source and o.lost == 0 and not o.cost


def test_a_gain_that_its_writer_takes_up_breaks_nothing() -> None:
    assert stream("layer scale") == []


def test_a_gain_on_the_way_cannot_be_taken_up() -> None:
    (o,) = stream("gain on the way")
    assert "the gain gain between two uses of this axis" in o.text and "instead of GL(6)" in o.text
    assert o.cost.startswith("fix at one: - 6 parameters, + ")


def test_a_shared_layer_could_have_copies() -> None:
    found = stream("shared")
    (o,) = [o for o in found if "shared by 2 readers" in o.text]
    assert "deep.weight and deep.bias are shared" in o.text
    assert o.cost.startswith("untie: + 42 parameters, + ") and o.lost > 0
