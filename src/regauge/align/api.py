"""`align`: is it the same model, and by which element of the gauge group?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from regauge.align.bonds import Aligned, per_bond
from regauge.align.fit import nearer
from regauge.align.freedoms import freedoms
from regauge.align.leaves import layout
from regauge.align.redrawn import Shuffled
from regauge.align.refine import refine
from regauge.align.sketch import NEAR, sketch
from regauge.align.solve import Progress, element_between
from regauge.align.verdict import (
    DERIVED,
    GAUGE_EQUAL,
    IDENTICAL,
    UNRELATED,
    Row,
    compare,
    distance,
    equal,
    exact_part,
    similarity,
    together,
    within,
)
from regauge.errors import CheckError, InputError
from regauge.solve.element import Element
from regauge.solve.gauge import Gauge
from regauge.solve.plan import Plan
from regauge.solve.state import State

SURE = 0.2  # a mean relative distance below this is no accident in any group
HALF = 0.5  # a relation explains at least half of what chance leaves


@dataclass(frozen=True)
class Alignment:
    """What `align` found.

    verdict: "identical" (equal entry by entry), "gauge-equal" (element.apply(a) is b but for rounding), "derived" (near,
    but not by the group alone: trained further, pruned, quantised, merged) or "unrelated". element: takes a as near to b
    as the group can. residual: |g.a - b| / |b| over all parameters, which says nothing unless `near`: what fits one
    tensor may stretch another without bound; floor: what rounding alone would leave of it.
    similarity: mean cosine between g.a and b; chance: the same between a and a b whose entries were shuffled, None where
    it was not needed. answers: similarity of the two sketches, None where it was not needed or cannot be had: models that
    answer as one are not called unrelated, even where no element was found. rows: the same by parameter; bonds: what
    differs at each bond. undetermined: bonds that nothing could align.
    """

    verdict: str
    element: Element
    residual: float
    floor: float
    similarity: float
    chance: float | None
    rows: tuple[Row, ...]
    bonds: tuple[Aligned, ...]
    undetermined: tuple[str, ...]
    answers: float | None = None

    @property
    def near(self) -> bool:
        """Whether the element brings a near b, so that its residual means something."""
        return self.verdict != UNRELATED and self.answers is None

    def __str__(self) -> str:
        away = f"|g.a - b| / |b| = {self.residual:.1e}, rounding alone {self.floor:.1e}, "
        by_chance = "" if self.chance is None else f" (by chance {self.chance:.2f})"
        lines = [f"{self.verdict}: {away if self.near else ''}cosine {self.similarity:.4f}{by_chance}"]
        lines += [f"  {b}" for b in self.bonds]
        lines += [f"  not aligned: {name}" for name in self.undetermined]
        if self.answers is not None and self.verdict == DERIVED:
            lines.append(
                f"  no element brings them near, but they answer as one: similarity of sketches {self.answers:.2f}"
            )
        return "\n".join(lines)

    __repr__ = __str__


def align(
    gauge: Gauge,
    state_a: Mapping[str, Tensor],
    state_b: Mapping[str, Tensor],
    *,
    progress: Progress | None = None,
) -> Alignment:
    """Find the element g of the whole group for which g.a is nearest to b, and say what is left.

    state_a, state_b: state dicts of the model that the gauge was inferred from; tensors may be loaded lazily, and of any
    floating dtype. Raises InputError where one of them lacks a parameter, has another shape or entries that are not
    finite, and CheckError where the search breaks down.
    """
    plan, say = gauge.plan, progress or (lambda stage: None)
    say("compare")
    same = Element(plan)
    first, second = State(plan, state_a), State(plan, state_b)
    if all(_equal(first.stored(n), second.stored(n)) for n in first.params):
        return _alignment(gauge, IDENTICAL, same, compare(plan, same, state_a, state_b), None, (), state_a, state_b)
    for state in (first, second):
        _require_finite(state)
    noise = max(_relative(state, n) for state in (first, second) for n in first.params)
    element, found = element_between(plan, state_a, state_b, noise, say)
    say("residual")
    rows = _finite(compare(plan, element, state_a, state_b))
    undetermined = tuple(f"{kind} {root}" for kind, root in found.undetermined)
    plain, plain_rows = _plainest(plan, element, rows, state_a, state_b)
    if plain is None and not equal(rows):
        say("nearest")
        nearest = nearer(element, state_a, state_b, layout(plan), freedoms(plan))
        element, rows = _better(plan, (element, rows), nearest, state_a, state_b)
    if plain is None and not equal(rows) and distance(rows) < SURE:
        say("refine")
        finer = refine(element, state_a, state_b, layout(plan))
        if finer is not element:
            element, rows = _better(plan, (element, rows), finer, state_a, state_b)
            plain, plain_rows = _plainest(plan, element, rows, state_a, state_b)
    if plain is not None and all(r.residual == 0 for r in plain_rows):
        return _alignment(gauge, GAUGE_EQUAL, plain, plain_rows, None, undetermined, state_a, state_b)
    if plain is None and equal(rows):
        return _alignment(gauge, GAUGE_EQUAL, element, rows, None, undetermined, state_a, state_b)
    if distance(rows) < SURE:
        kept, shown = (element, rows) if plain is None else (plain, plain_rows)
        return _alignment(gauge, DERIVED, kept, shown, None, undetermined, state_a, state_b)
    say("chance")
    shuffled = Shuffled(state_b)
    other, _ = element_between(plan, state_a, shuffled, noise, lambda stage: None)
    chance = similarity(_finite(compare(plan, other, state_a, shuffled)))
    if 1 - similarity(rows) < HALF * (1 - chance):
        return _alignment(gauge, DERIVED, element, rows, chance, undetermined, state_a, state_b)
    say("answers")
    answers = _answers(gauge, state_a, state_b)
    verdict = DERIVED if answers is not None and answers >= NEAR else UNRELATED
    far = _alignment(gauge, verdict, element, rows, chance, undetermined, state_a, state_b)
    return replace(far, answers=answers)


def _plainest(
    plan: Plan, element: Element, rows: tuple[Row, ...], a: Mapping[str, Tensor], b: Mapping[str, Tensor]
) -> tuple[Element | None, tuple[Row, ...]]:
    """The identity, or the orders and signs alone, where they bring a to b as well as the whole element does: then what
    is left is no gauge, however small it is. None where the whole element is needed."""
    away = distance(rows)
    for plain in (Element(plan), exact_part(element)):
        if within(plan, plain, a, b, 1.25 * away):
            return plain, compare(plan, plain, a, b)
    return None, rows


def _better(
    plan: Plan, old: tuple[Element, tuple[Row, ...]], new: Element, a: Mapping[str, Tensor], b: Mapping[str, Tensor]
) -> tuple[Element, tuple[Row, ...]]:
    """The new element where it leaves less, or no more than rounding."""
    rows = _finite(compare(plan, new, a, b))
    return (new, rows) if equal(rows) or distance(rows) < distance(old[1]) else old


def _answers(gauge: Gauge, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float | None:
    """Similarity of the sketches; None for a gauge read back from a file, which holds no functions to run."""
    try:
        return sketch(gauge, a, "").similarity(sketch(gauge, b, ""))
    except KeyError:
        return None


def _require_finite(state: State) -> None:
    for name in state.params:
        x = state.stored(name)
        if x.numel() and not bool(torch.isfinite(x.abs().max())):
            raise InputError(
                f"align: {name}: some entries are not finite, so it has no distance to another: mend it first"
            )


def _finite(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The same, or an error: what is no number is neither near nor far."""
    for r in rows:
        if not (isfinite(r.residual) and isfinite(r.cosine)):
            raise CheckError(
                f"align: {r.name}: g.a - b is not a finite number, so nothing can be said of the two models: the parameters "
                "are not generic (a gain is zero?); compare their sketches (regauge fingerprint, regauge match)"
            )
    return rows


def _equal(x: Tensor, y: Tensor) -> bool:
    return torch.equal(x, y) if x.dtype == y.dtype else torch.equal(x.double(), y.double())


def _relative(state: State, name: str) -> float:
    """Relative rounding error of a parameter's dtype."""
    return torch.finfo(state.stored(name).dtype).eps / 4


def _alignment(
    gauge: Gauge,
    verdict: str,
    element: Element,
    rows: tuple[Row, ...],
    chance: float | None,
    undetermined: tuple[str, ...],
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
) -> Alignment:
    total = max(sum(r.norm**2 for r in rows) ** 0.5, 1e-300)
    residual, floor = together(rows)
    bonds = per_bond(gauge, element, a, b) if verdict == DERIVED else ()
    return Alignment(
        verdict, element, residual / total, floor / total, similarity(rows), chance, rows, bonds, undetermined
    )


__all__ = ["DERIVED", "GAUGE_EQUAL", "IDENTICAL", "UNRELATED", "Alignment", "align"]
