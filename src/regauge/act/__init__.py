"""Gauge choices: pure functions from a gauge and a state to an element of the group.

`fold` and `rotate` choose where the weights go; a `Recipe` composes choices into one element. Each element leaves the function
unchanged: `element.apply(state)` gives other weights of the same model.
"""

from __future__ import annotations

from regauge.act.balance import balance
from regauge.act.canonical import CanonicalReport, canonical
from regauge.act.fold import fold
from regauge.act.prune import Pruned, prune_redundant
from regauge.act.recipe import Recipe, Step
from regauge.act.rotate import rotate
from regauge.act.strata import Stratum, strata
from regauge.act.untie import Untied, untie

__all__ = [
    "CanonicalReport",
    "Pruned",
    "Recipe",
    "Step",
    "Stratum",
    "Untied",
    "balance",
    "canonical",
    "fold",
    "prune_redundant",
    "rotate",
    "strata",
    "untie",
]
