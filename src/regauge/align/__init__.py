"""Is it the same model? The gauge transformation between two states, and what is left after it."""

from regauge.align.api import DERIVED, GAUGE_EQUAL, IDENTICAL, UNRELATED, Alignment, align
from regauge.align.bonds import Aligned
from regauge.align.sketch import Sketch, sketch
from regauge.align.verdict import Row

__all__ = [
    "DERIVED",
    "GAUGE_EQUAL",
    "IDENTICAL",
    "UNRELATED",
    "Aligned",
    "Alignment",
    "Row",
    "Sketch",
    "align",
    "sketch",
]
