"""Why the dimension falls short of the nullity, for the types where it was looked into.

Each was read off the null vectors that the group's own directions leave over: the parameters that hold them, and how
many there are. A type without an entry has not been looked into.
"""

from __future__ import annotations

PADDED_POSITIONS = (
    "key biases, and the row of the position table that only padding reads, are not found where positions are counted "
    "from the tokens"
)
NARROW_EMBEDDING = (
    "the embedding is narrower than the stream: maps of the first layer act on fewer directions than they have"
)
REPEATED_HEADS_NORMED = "a norm over repeated value heads: rotations within a head"
ROUTER_AFTER_CHOICE = (
    "a softmax over the chosen logits alone does not see one shift of all rows of the router; the shift is not followed "
    "through the choice"
)
NORMED_VALUES = "rotations of the normed value head of the full-attention layers, and gains of their queries and keys"

REASONS: dict[str, str] = {
    "camembert": PADDED_POSITIONS,
    "data2vec-text": PADDED_POSITIONS,
    "roberta": PADDED_POSITIONS,
    "roberta-prelayernorm": PADDED_POSITIONS,
    "xlm-roberta": PADDED_POSITIONS,
    "xlm-roberta-xl": PADDED_POSITIONS,
    "granitemoe": ROUTER_AFTER_CHOICE,
    "granitemoeshared": ROUTER_AFTER_CHOICE,
    "gemma4_unified": NORMED_VALUES,
    "gemma4_unified_text": NORMED_VALUES,
    "electra": NARROW_EMBEDDING,
    "GroupNorm": (
        "the relation that a norm of groups leaves is one for each group: a map that reads all groups together takes up "
        "one direction for each, which is not followed"
    ),
    "bitnet": REPEATED_HEADS_NORMED,
    "diffllama": (
        "learned scalars q . k of two vectors: the group counts GL(n) where the pair has an orbit of 2 n - 1; two value "
        "heads that are joined before a norm: O(2 n) found as O(n) x O(n)"
    ),
}
