"""Why the dimension falls short of the nullity, for the types where it was looked into.

Each was read off the null vectors that the group's own directions leave over: the parameters that hold them, and how
many there are. A type without an entry has not been looked into.
"""

from __future__ import annotations

NARROW_EMBEDDING = (
    "the embedding is narrower than the stream: maps of the first layer act on fewer directions than they have, which is "
    "followed where frames turn the stream but not where norms of the sum (post-norm) keep its coordinates apart: queries, keys and "
    "values on what the embedding does not reach (120), heads of the values that it does not fill (6), the rest along the mean"
)
SHEARED_STREAM = (
    "learned positions are added to a normed embedding, and only centring norms and the first attention read the sum: it may be "
    "sheared along the mean by the covector that the norm keeps constant, which positions and readers follow"
)
COPIED_STREAMS = (
    "several streams that begin as copies of one embedding: the maps that mix them read fewer directions than they have in the "
    "first layers"
)

REASONS: dict[str, str] = {
    "deepseek_v4": COPIED_STREAMS,
    "hy_v4": COPIED_STREAMS,
    "xlm": (
        "a mask of padding on the embedding and on the result: at masked places, which no other place reads, the shift of the norm "
        "(8) and what readers of a normed stream may add (24) leave no trace"
    ),
    "roformer": (
        "the table of angles is a parameter: each angle is read twice, and the map that repeats it cuts through no axis that can be "
        "kept apart, so that the heads lose their frames, those of the values too"
    ),
    "roc_bert": (
        "two tables of which one row is read, whatever the input, stand beside the words before a map with a bias: of the two "
        "constants that the bias could take in only one is followed"
    ),
    "electra": NARROW_EMBEDDING,
    "rembert": NARROW_EMBEDDING,
    "blenderbot-small": SHEARED_STREAM,
    "prophetnet": (
        "relative scores of the n-gram streams are viewed with time and heads in another order than they have, so that heads have no "
        "cut in common with what they are read as: they stay fixed, and with them the coordinates inside (queries and keys 32, "
        "values 32 and their biases); rows of relative positions that no distance reaches"
    ),
    "zamba2": (
        "one matrix in two layers, each with a narrow product of its own beside it: what it takes in from one it takes from the "
        "other (GL(8) of both products side by side instead of GL(4) of each, 32); one more was not found"
    ),
    "reformer": (
        "the hash of shared queries and keys is drawn anew at each run, and a small copy is measured on few draws; the rest was not "
        "looked into"
    ),
    "GroupNorm": (
        "the relation that a norm of groups leaves is one for each group: a map that reads all groups together takes up "
        "one direction for each, which is not followed"
    ),
    "diffllama": (
        "two value heads that are joined before a norm: O(2 n) found as O(n) x O(n); two learned scalars of which only the "
        "difference of exponentials is read"
    ),
}
