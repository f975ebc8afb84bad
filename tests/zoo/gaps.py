"""Ratchets: where the compiler is known not to be tight, or not to give one answer by both routes.

They may only shrink: a test fails when an entry no longer holds, and then it goes, or its number gets smaller.
"""

from __future__ import annotations

# nullity - inferred dimension; a negative number counts directions that a low rank makes coincide
GAPS: dict[str, int] = {
    # hidden width above the rank of its neighbours, or rank below the width
    "linear-wide": -5,
    "linear-wide-nobias": -5,
    "linear-bottleneck": 9,
    "linear-bottleneck-nobias": 9,
    "attn-wide-keys": -8,
    "attn-softmax-value-bias-wide": 2,
    "learned-queries": 3,
    "norm-narrow-input": 8,
    # everything redundant: the function space is smaller than what the rules see
    "lora-trained-base": 22,
    "shared-twice-linear": 23,
    # a residual linear map read as one map
    "linear-ode": 32,
    "shared-twice-linear-seen": 3,
    # the two biases of recurrent modules
    "rnn-tanh": 5,
    "rnn-relu": 5,
    "rnn-two-layers": 10,
    "lstm": 20,
    "lstm-bidirectional": 32,
    "gru": 10,
    # constant vectors and maps on a linear bond
    "constant-vector-absorbed": 16,
    "constant-vector-bare": 12,
    "constant-map-regular": 15,
    "constant-map-singular": 33,
    "constant-map-diagonal": 15,
    "constant-map-relu": 3,
    "sum-features-linear": 3,
    "sum-features-only": 12,
    "outer-square": 21,
    # translations
    "bert-mlm-tied": 1,
    "decoder-layer": 6,
    "vit": 24,
    "tied-rmsnorm-positions-probabilities": 5,
    "final-layernorm-bare-reader": 6,
}
