"""From two states to the element that takes one to the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from regauge.align import affine
from regauge.align.balance import balance, fold, unbalanced
from regauge.align.condense import condensed
from regauge.align.freedoms import Freedoms, freedoms
from regauge.align.held import Held
from regauge.align.leaves import Layout, layout
from regauge.align.match import Matched, match
from regauge.align.overlap import Problem
from regauge.align.polish import polish
from regauge.solve.element import Element, Move
from regauge.solve.plan import Plan
from regauge.solve.state import State

Progress = Callable[[str], None]


def element_between(
    plan: Plan, a: Mapping[str, Tensor], b: Mapping[str, Tensor], noise: float, say: Progress
) -> tuple[Element, Matched]:
    """g with g.a near to b, class by class; `refine` makes it the nearest. noise: relative size of what rounding does to the
    entries."""
    places, free = layout(plan), freedoms(plan)
    say("balance")
    held_a, moves_a = balanced(plan, a, places, free, noise)
    held_b, moves_b = balanced(plan, b, places, free, noise)
    say("match")
    found = match(Problem(held_a, held_b, places, free, unbalanced(held_a, places, noise)), max(1e-7, 4 * noise))
    del held_a, held_b
    back = [m.inverse() for m in reversed(moves_b)]
    linear = condensed(places, (*moves_a, *found.moves, *back))
    say("translations")
    shifts = affine.between(linear.moved(State(plan, a)), State(plan, b))
    rough = Element(plan, (*linear.moves, *shifts))
    say("polish")
    moves = polish(rough, a, b, places, free)
    if shifts:
        finer = Element(plan, (*rough.moves, *condensed(places, moves).moves))
    else:  # nothing stands between
        finer = condensed(places, (*linear.moves, *moves))
    last = affine.between(finer.moved(State(plan, a)), State(plan, b))
    return Element(plan, (*finer.moves, *last)), found


def balanced(
    plan: Plan, state: Mapping[str, Tensor], places: Layout, free: Freedoms, noise: float
) -> tuple[Held, list[Move]]:
    """The state with gains at one, without translations, at the least norm; and the linear moves that did it."""
    held = Held(plan, state)
    moves = fold(held, free)
    affine.remove(held)
    moves += balance(held, places, free, noise)
    return held, moves


__all__ = ["element_between"]
