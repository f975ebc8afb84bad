"""Why the dimension falls short of the nullity, for the types where it was looked into.

Each was read off the null vectors that the group's own directions leave over: the parameters that hold them, and how
many there are. A type without an entry has not been looked into.
"""

from __future__ import annotations

PADDED_POSITIONS = (
    "the row of the padding token and the row of its position are only read together where positions are counted from the "
    "tokens: what is added to one is taken from the other"
)
NARROW_EMBEDDING = (
    "the embedding is narrower than the stream: maps of the first layer act on fewer directions than they have"
)
REPEATED_HEADS_NORMED = "a norm over repeated value heads: rotations within a head"
ABSORBED_BY_A_TABLE = (
    "a table of the tokens takes up any function of the token that is added to it (a projection of another embedding): only "
    "products of matrices are taken up so far"
)

REASONS: dict[str, str] = {
    "camembert": PADDED_POSITIONS,
    "data2vec-text": PADDED_POSITIONS,
    "roberta": PADDED_POSITIONS,
    "roberta-prelayernorm": PADDED_POSITIONS,
    "xlm-roberta": PADDED_POSITIONS,
    "xlm-roberta-xl": PADDED_POSITIONS,
    "gemma4": ABSORBED_BY_A_TABLE,
    "gemma4_text": ABSORBED_BY_A_TABLE,
    "electra": NARROW_EMBEDDING,
    "GroupNorm": (
        "the relation that a norm of groups leaves is one for each group: a map that reads all groups together takes up "
        "one direction for each, which is not followed"
    ),
    "bitnet": REPEATED_HEADS_NORMED,
    "diffllama": (
        "two value heads that are joined before a norm: O(2 n) found as O(n) x O(n); two learned scalars of which only the "
        "difference of exponentials is read"
    ),
}
