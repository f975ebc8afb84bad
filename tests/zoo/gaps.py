"""Ratchets: where the compiler is known not to be tight, or not to give one answer by both routes.

They may only shrink: a test fails when an entry no longer holds, and then it goes, or its number gets smaller.
"""

from __future__ import annotations

# nullity - inferred dimension
GAPS: dict[str, int] = {
    # rank below the width
    "norm-narrow-input": 1,
    # everything redundant: the function space is smaller than what the rules see
    "shared-twice-linear": 23,
    # a linear recurrence whose states are all read
    "shared-twice-linear-seen": 3,
    # constant vectors and maps on a linear bond
    "constant-vector-absorbed": 16,
    "constant-vector-bare": 12,
    "constant-map-regular": 15,
    "constant-map-singular": 33,
    "constant-map-diagonal": 15,
    "constant-map-relu": 3,
    "outer-square": 21,
    # lengths, where a clamp far below them is no scale
    "cosine-to-centres": 5,
    # a length for each row of a table
    "table-behind-a-norm-exact": 12,
    # a function of parameters alone
    "gains-of-one-another": 15,
    # translations
    "final-layernorm-bare-reader": 6,
}

# models whose fully decomposed program does not give the same gauge yet, and why
ONE_ROUTE: dict[str, str] = {
    "chosen-then-softmax": "axes of size 1 stand between the choice and its readers: the experts' signs are found to be common"
}
