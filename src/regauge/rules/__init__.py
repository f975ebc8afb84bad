"""Rules: how each PyTorch operator is written in the core graph. Importing this package fills the table."""

from regauge.rules import (
    arithmetic,
    attention,
    axes,
    complex,
    contract,
    copies,
    indexing,
    norm,
    pointwise,
    reduce,
    resample,
)
from regauge.rules.registry import RULES, Rule, rule

__all__ = ["RULES", "Rule", "rule"]

_LOADED = (arithmetic, attention, axes, complex, contract, copies, indexing, norm, pointwise, reduce, resample)
