"""The words of translations: where they come from, how they enter a block, and what must vanish."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from regauge.solve.blocks import Block, Relation
from regauge.solve.known import Known

IDENTITY, SCALAR, MATRIX = "identity", "scalar", "matrix"


@dataclass(frozen=True)
class Source:
    """Translations of one parameter block: of the whole block, or u times a covector phi for every role in which it is read.

    roles: the leaves that a reader sums over, with the relation that the other operand satisfies there. along: all leaves
    over which u does not vary, those of the roles among them.
    """

    id: int
    block: Block
    along: frozenset[int] = frozenset()
    roles: tuple[tuple[frozenset[int], Known], ...] = ()

    @property
    def known(self) -> Known | None:
        return self.roles[0][1] if self.roles else None

    def role(self, leaves: frozenset[int]) -> Known | None:
        """The relation by which a reader that sums over these leaves takes part."""
        return next((k for where, k in self.roles if where == leaves), None)

    def seen(self, leaves: frozenset[int]) -> tuple[int, ...]:
        """Leaves over which the result of that reader varies: those of u, and of other roles where phi is no constant."""
        inner = {k for where, known in self.roles if where != leaves and known.gains for k in where}
        return tuple(k for k in range(len(self.block.leaves)) if k not in self.along or k in inner)

    @property
    def leaves(self) -> tuple[int, ...]:
        """Leaves that u varies over."""
        return tuple(k for k in range(len(self.block.leaves)) if k not in self.along)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.block.sizes[k] for k in self.leaves)

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Part:
    """How a source enters the translation of a block: kind of coefficient, factor, and the leaf for each leaf of u."""

    kind: str
    factor: float
    leaves: tuple[int, ...]


def composed(part: Part, at: Part, other: Part) -> Part:
    """The pivot entered a block as `part`; where it was solved for it stood as `at` beside `other`."""
    plain = part.kind == at.kind == other.kind == IDENTITY
    if plain and set(other.leaves) <= set(at.leaves):
        leaves = tuple(part.leaves[at.leaves.index(k)] for k in other.leaves)
        return Part(IDENTITY, -part.factor * other.factor / at.factor, leaves)
    return Part(MATRIX, 1.0, part.leaves)


@dataclass(frozen=True)
class Demand:
    """The translation of a block must vanish; `pivot` is chosen to make it so."""

    block: Block
    pivot: int
    part: Part
    known: Known | None


@dataclass(frozen=True)
class Shifts:
    """sources: all that take part. free: those that may be chosen, with the dimension each adds. demands: in order.

    moving: the sources that really move, chosen or in answer to others. beyond: directions on top of those, in which the
    sources of `together` move so that maps take it to nothing, being more than what is behind can tell; counted, not sampled.
    """

    sources: tuple[Source, ...]
    free: tuple[int, ...]
    dims: dict[int, int]
    demands: tuple[Demand, ...]
    lost: tuple[tuple[int, Block], ...]
    known: dict[int, Known] = field(default_factory=dict)
    region: tuple[Relation, ...] = ()
    kept: frozenset[int] = frozenset()
    seconds: frozenset[int] = frozenset()
    moving: frozenset[int] = frozenset()
    beyond: int = 0
    together: frozenset[int] = frozenset()

    @property
    def dim(self) -> int:
        return sum(self.dims.values())
