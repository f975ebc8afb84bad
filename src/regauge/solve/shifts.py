"""Pass 4, second half: constant translations and how parameters absorb one another's.

Sources are additive parameters, and u phi^T for linear readers of a value with a known relation. Their translations are
pushed forward; wherever a reader would see one, a source is eliminated to cancel it. What is left free is the group.
The plan is symbolic and weight-free; `translate.py` replays it on numbers.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from regauge.graph.ir import Add, Along, Concat, Einsum, Free, Mix, Param, Reshape, Slice
from regauge.solve.blind import Tolerance, Unseen, entire
from regauge.solve.blocks import Block, Blocks, Relation, Term
from regauge.solve.extent import extent
from regauge.solve.facts import turns
from regauge.solve.frames import evaluable
from regauge.solve.kernels import equations, kernels
from regauge.solve.known import Known
from regauge.solve.origins import LEVELS, origins
from regauge.solve.sources import IDENTITY, MATRIX, SCALAR, Demand, Part, Shifts, Source, composed
from regauge.solve.state import positions
from regauge.solve.together import Joint, Parts

Expression = dict[int, Part]


class _Solver:
    """mode "full": whole translations, which every reader must see vanish. "level": multiples of ones, which a centring
    reader absorbs while others see them. "overlap": multiples of ones that are found in "full" already. "statistics": as
    "full", with running means among the sources.
    """

    def __init__(
        self,
        blocks: Blocks,
        relations: list[Relation],
        tolerance: dict[int, Tolerance],
        known: dict[int, Known],
        seen: tuple[Unseen, ...],
        shared: tuple[Joint, ...],
        mode: str = "full",
        early: frozenset[int] = frozenset(),
        bind: bool = False,
        apart: frozenset[int] = frozenset(),
    ) -> None:
        self.mode = mode
        self.early = early
        self.bind = bind
        self.bound: list[tuple[frozenset[int], int]] = []  # sources, and how many equations they satisfy together
        self.held: set[int] = set()  # those sources
        self.regrets: set[int] = set()
        self.blocks = blocks
        self.tolerance = tolerance
        self.known = known
        self.unseen = {u.block.id: u for u in seen}
        self.shared = {b.id: j for j in shared for b in j.blocks}
        self.index = {b.id: b for b in blocks.all()}
        self.readers: dict[int, list[Relation]] = {}
        self.writers: dict[int, list[Relation]] = {}
        for r in relations:
            self.writers.setdefault(r.out.block.id, []).append(r)
            for i in dict.fromkeys(t.block.id for t in r.ins):
                self.readers.setdefault(i, []).append(r)
        told = {i: [r for r in found if r.out.block.value.id not in apart] for i, found in self.readers.items()}
        self.sources = origins(blocks, told, tolerance, known, mode)
        self.reader_sources = {s.block.id: s for s in self.sources if s.roles}
        self.tau: dict[int, Expression] = {}
        self.where: dict[int, set[int]] = {}
        self.dead: set[int] = set()
        self.demands: list[Demand] = []
        self.lost: list[tuple[int, Block]] = []
        self.solved: set[int] = set()
        self.pivots: dict[int, set[int]] = {}
        self.answers: dict[int, Expression] = {}  # pivot -> what it makes up for
        self.signatures: dict[int, object] = {}
        self.met: set[object] = set()
        self.echoes: set[int] = set()
        self.seconds: set[int] = set()

    def run(self) -> Shifts:
        order: list[Relation] = []
        for v in self.blocks.graph.values:
            for b in self.blocks.of[v.id]:
                if not v.learned:
                    continue
                if isinstance(v.op, Param):
                    expression = {
                        s.id: Part(IDENTITY, 1.0, s.leaves) for s in self.sources if s.block.id == b.id and not s.roles
                    }
                else:
                    expression = {}
                    self.signatures[b.id] = self._signature(b)
                    for r in self.writers.get(b.id, []):
                        step = self._propagate(r)
                        if step:
                            order.append(r)
                        for s, part in step.items():
                            self._merge(expression, s, part)
                self._settle(b, expression)
        free = [s for s in self.sources if s.id not in self.solved | self.dead | self.held]
        dims = {s.id: self._dim(s) for s in free}
        free = [s for s in free if dims[s.id] > 0]
        return Shifts(
            tuple(self.sources),
            tuple(s.id for s in free),
            {s.id: dims[s.id] for s in free},
            tuple(self.demands),
            tuple(self.lost),
            self.known,
            tuple(order),
            frozenset(self.tau) | {d.block.id for d in self.demands},
            frozenset(self.seconds),
            frozenset(s.id for s in self.sources if self._moves(s.id)),
            *kernels(self.bound, {s.id: self._dim(s) for s in self.sources if s.id in self.held - self.dead}),
        )

    def _moves(self, s: int) -> bool:
        """Free, or in answer to one that is."""
        if s in self.dead or s not in self.solved:
            return s not in self.dead
        return any(self._moves(other) for other in self.answers.get(s, ()))

    def _signature(self, b: Block) -> object:
        """What the translation of a block is made of: equal for blocks whose translations are equal."""
        if isinstance(b.value.op, Param):
            return "parameter", b.id

        def term(t: Term) -> object:
            if t.block.id in self.tau:
                return "tau", self.signatures.get(t.block.id, t.block.id)
            v = t.block.value
            if evaluable(v) or isinstance(v.op, Param | Free):
                return "block", t.block.id
            k = self.known.get(t.block.id)
            return "data", k and (k.constant, tuple(g.id for g in k.gains), tuple((c, s.id, n) for c, s, n in k.shifts))

        return b.value.id, tuple(tuple(term(t) for t in r.ins) for r in self.writers.get(b.id, []))

    def _propagate(self, r: Relation) -> Expression:
        out: Expression = {}
        if isinstance(r.op, Einsum):
            self._product(r, out)
            return out
        if isinstance(r.op, Along) and r.op.blind:
            return out
        for i, t in enumerate(r.ins):
            for s, part in self.tau.get(t.block.id, {}).items():
                labels = tuple(t.labels[k] for k in part.leaves)
                if isinstance(r.op, Mix) and turns(r, labels):
                    varies = {*labels, *r.planes, *r.fixed}
                    leaves = tuple(k for k, l in enumerate(r.out.labels) if l in varies)
                    self._merge(out, s, Part(MATRIX, 1.0, leaves))
                    continue
                factor = part.factor * (r.op.coefs[i] if isinstance(r.op, Add) else 1.0)
                leaves = tuple(r.out.labels.index(l) for l in labels)
                self._merge(out, s, Part(part.kind, factor, leaves))
        return out

    def _product(self, r: Relation, out: Expression) -> None:
        moving = [self.tau[t.block.id] for t in r.ins if self.tau.get(t.block.id)]
        for s in [s for tau in moving[1:] for s in tau]:
            self._kill(s)  # two translations that multiply one another are no translation
        for t in r.ins:
            others = [o for o in r.ins if o is not t]
            for s, part in list(self.tau.get(t.block.id, {}).items()):
                labels = [t.labels[k] for k in part.leaves]
                summed = [l for l in t.labels if l not in r.out.labels]
                if not others and not (set(labels) & set(summed)):
                    count = prod(t.block.sizes[t.labels.index(l)] for l in summed)
                    leaves = tuple(r.out.labels.index(l) for l in labels)
                    self._merge(out, s, Part(part.kind, part.factor * count, leaves))
                elif self._averages(r, t, part):
                    k = self.known[others[0].block.id]
                    leaves = tuple(r.out.labels.index(l) for l in labels)
                    if k.partial and not self._leads(others[0], r):
                        self.seconds.add(others[0].block.id)
                        continue  # the average over all blocks is counted at the first
                    self._merge(out, s, Part(part.kind, part.factor * k.constant, leaves))
                elif self.mode in LEVELS:
                    self._kill(s)
                else:
                    varies = {l for l in labels if l in r.out.labels} | {
                        l for o in others for l in o.labels if l in r.out.labels and evaluable(o.block.value)
                    }
                    self._merge(out, s, Part(MATRIX, 1.0, tuple(k for k, l in enumerate(r.out.labels) if l in varies)))
        for t in r.ins:
            source = self.reader_sources.get(t.block.id)
            if source is None or source.id in self.dead:
                continue
            (other,) = [o for o in r.ins if o is not t]
            role = frozenset(i for i, l in enumerate(t.labels) if l in other.labels and l not in r.out.labels)
            seen = self.known.get(other.block.id)
            if source.role(role) is None or seen is None or seen.zero:
                continue
            reached = source.seen(role)
            if any(t.labels[i] not in r.out.labels for i in reached):  # summed over on the way
                self._kill(source.id)
                continue
            leaves = tuple(r.out.labels.index(t.labels[i]) for i in reached)
            if reached != source.leaves:
                self._merge(out, source.id, Part(MATRIX, 1.0, leaves))
                continue
            kind = IDENTITY if not seen.shifts else SCALAR
            self._merge(out, source.id, Part(kind, seen.constant if not seen.shifts else 1.0, leaves))

    def _averages(self, r: Relation, t: Term, part: Part) -> bool:
        """sum_s p_s (v_s + tau) with sum_s p_s known and tau the same for every s."""
        others = [o for o in r.ins if o is not t]
        if len(others) != 1:
            return False
        k = self.known.get(others[0].block.id)
        if k is None or k.gains or k.shifts:
            return False
        summed = {l for l in t.labels if l not in r.out.labels}
        mine = {t.labels[i] for i in part.leaves}
        along = {others[0].labels[i] for i in k.along}
        shared = mine & set(others[0].labels)
        if k.partial and not self._uniform(r, t, others[0], k):
            return False
        if summed != along or set(others[0].labels) - set(r.out.labels) != along:
            return False
        return not (mine & summed) and mine <= set(r.out.labels) and not (shared - set(r.out.labels))

    def _leads(self, p: Term, r: Relation) -> bool:
        """The block is the first of those into which the averaged axis is cut."""
        axis = self.known[p.block.id].axis
        assert axis is not None
        return p.block.id == min(b.id for b in self.blocks.siblings(p.block, {axis}))

    def _uniform(self, r: Relation, t: Term, p: Term, k: Known) -> bool:
        """The translation is the same in all blocks along the averaged axis."""
        assert isinstance(r.op, Einsum) and k.axis is not None
        if isinstance(t.block.value.op, Param):
            return False  # perhaps a part of a parameter, whose axes are not those of the product
        at = next(i for i, x in enumerate(r.ins) if x is p)
        mine = next(i for i, x in enumerate(r.ins) if x is t)
        label = r.op.ins[at][k.axis]
        return label in r.op.ins[mine] and self._everywhere(t.block, {r.op.ins[mine].index(label)})

    def _everywhere(self, b: Block, axes: set[int]) -> bool:
        """The translation is the same in all blocks into which these axes are cut."""
        mine = self._signature(b)
        return all(self._signature(other) == mine for other in self.blocks.siblings(b, axes))

    def _together(self, b: Block, parts: Parts, varies: frozenset[int]) -> bool:
        """The translation is the same in all parts, and constant along what they want it to be."""
        mine = self._signature(b)
        return not dict(parts)[b.id] & varies and all(self._signature(self.index[m]) == mine for m, _ in parts)

    def _merge(self, expression: Expression, s: int, part: Part) -> None:
        if s in self.dead:
            return
        old = expression.get(s)
        if old is None:
            expression[s] = part
        elif old.kind == part.kind == IDENTITY and old.leaves == part.leaves:
            total = old.factor + part.factor
            if total == 0:
                del expression[s]
            else:
                expression[s] = Part(IDENTITY, total, part.leaves)
        else:
            expression[s] = Part(MATRIX, 1.0, tuple(sorted({*old.leaves, *part.leaves})))

    def _settle(self, b: Block, expression: Expression) -> None:
        """Drop what nobody sees; make the rest vanish where a reader would see it."""
        expression = {s: p for s, p in expression.items() if s not in self.dead}
        if not expression:
            return
        varies = frozenset(k for p in expression.values() for k in p.leaves)
        tolerance = self.tolerance.get(b.id)
        if tolerance is None or tolerance.covers(varies):
            return
        if any(self._together(b, parts, varies) for parts in tolerance.joint):
            return
        readers = self.readers.get(b.id, [])
        observed = any(b.value is v for v in self.blocks.graph.outputs)
        if not observed and b.id not in self.early and all(self._hands_on(r, b, expression) for r in readers):
            self.tau[b.id] = expression
            for s in expression:
                self.where.setdefault(s, set()).add(b.id)
            return
        signature = self.signatures.get(b.id, b.id)
        if signature in self.met:
            self.echoes.add(b.id)
            return
        self.met.add(signature)
        while expression:
            pivot = self._pivot(expression)
            if pivot is None:
                self.regrets.update(c for s in expression for c in self._sooner(s))
                beyond = self._beyond(expression)
                if self.bind:
                    beyond = self._held_back(b, expression, beyond)
                for s in beyond:
                    self.lost.append((s, b))
                    self._kill(s)
                    del expression[s]
                continue
            part = expression.pop(pivot)
            self.demands.append(Demand(b, pivot, part, self.sources[pivot].known if part.kind == SCALAR else None))
            self.solved.add(pivot)
            self.answers[pivot] = dict(expression)
            for s in expression:
                self.pivots.setdefault(s, set()).add(pivot)
            self._substitute(pivot, part, expression)
            return

    def _beyond(self, expression: Expression) -> list[int]:
        """Where no source makes up for all others: those that vary over more than the one that reaches furthest."""
        reach = max((set(p.leaves) for s, p in expression.items() if self._answers(s, p)), key=len, default=None)
        return [s for s, p in expression.items() if reach is None or not set(p.leaves) <= reach]

    def _held_back(self, b: Block, expression: Expression, beyond: list[int]) -> list[int]:
        """Instead of vanishing one by one, what comes through maps vanishes together, but for what the block tolerates."""
        group = {s: expression.pop(s) for s in beyond if expression[s].kind == MATRIX}
        if group:
            leaves = sorted({k for p in group.values() for k in p.leaves})
            self.bound.append((frozenset(group), equations(b, leaves, self.tolerance[b.id])))
            self.held.update(group)
        return [s for s in beyond if s not in group]

    def _answers(self, s: int, part: Part) -> bool:
        """May be solved for."""
        return part.kind != MATRIX and s not in self.solved | self.held and len(self.sources[s].roles) < 2

    def _pivot(self, expression: Expression) -> int | None:
        """The youngest source with an invertible coefficient that reaches every place where the translation varies."""
        varies = {k for p in expression.values() for k in p.leaves}
        for kind in (IDENTITY, SCALAR):
            fit = [
                s for s, p in expression.items() if p.kind == kind and set(p.leaves) == varies and self._answers(s, p)
            ]
            if fit:  # one whose block has unseen directions, so that the free ones count in full
                return max(fit, key=lambda s: (self._hides(s), self.sources[s].block.value.id, s))
        return None

    def _hides(self, s: int) -> bool:
        """Its block has directions that nobody sees."""
        b = self.sources[s].block.id
        return b in self.unseen or b in self.shared

    def _sooner(self, s: int) -> list[int]:
        """The first block that handed this translation on, though one of two could have made up for the other there."""
        handed = sorted(b for b in self.where.get(s, ()) if s in self.tau[b])  # not cancelled; in order
        return [b for b in handed if self._meets(s, self.tau[b])][:1]

    def _meets(self, s: int, expression: Expression) -> bool:
        mine = expression[s]
        return any(
            self._answers(s, mine)
            and set(p.leaves) <= set(mine.leaves)
            or self._answers(t, p)
            and set(mine.leaves) <= set(p.leaves)
            for t, p in expression.items()
            if t != s
        )

    def _kill(self, s: int) -> None:
        self.dead.add(s)
        for b in self.where.pop(s, set()):
            self.tau.get(b, {}).pop(s, None)

    def _substitute(self, pivot: int, at: Part, rest: Expression) -> None:
        """pivot = -(rest): wherever it went, the rest goes now."""
        for b in self.where.pop(pivot, set()):
            part = self.tau[b].pop(pivot, None)
            if part is None:
                continue
            for s, other in rest.items():
                self._merge(self.tau[b], s, composed(part, at, other))
                self.where.setdefault(s, set()).add(b)

    def _hands_on(self, r: Relation, b: Block, expression: Expression) -> bool:
        if r.out.block.id not in self.tolerance:
            return True
        terms = [t for t in r.ins if t.block.id == b.id]
        match r.op:
            case Add() | Reshape() | Slice():
                return not any(t.labels[k] in r.touched for t in terms for p in expression.values() for k in p.leaves)
            case Concat():
                return not r.touched
            case Mix():
                whole = positions(b) is None and positions(r.out.block) is None
                if len(expression) == 1 and r.op.small and whole:
                    return True  # nothing here to absorb it: perhaps behind
                leaves = {k for p in expression.values() for k in p.leaves}
                return not any(turns(r, tuple(t.labels[k] for k in leaves)) for t in terms)
            case Along() if r.op.blind and self._absorbs(r, terms[0], expression):
                return True
            case Along() if r.op.constants and entire(r, terms[0]):
                return not any(t.labels[k] in r.touched for t in terms for p in expression.values() for k in p.leaves)
            case Einsum():
                if len(terms) != 1:
                    return False
                others = [o for o in r.ins if o is not terms[0]]
                if all(evaluable(o.block.value) for o in others):
                    return True
                return all(self._averages(r, terms[0], p) for p in expression.values())
        return False

    def _absorbs(self, r: Relation, t: Term, expression: Expression) -> bool:
        """A constant along the axes that a softmax or a centring takes away."""
        if any(t.labels[k] in r.touched for p in expression.values() for k in p.leaves) or not entire(r, t):
            return False
        sample = all(self.blocks.is_rigid(t.block, k) for k, l in enumerate(t.labels) if l in r.touched)
        return sample or self.mode == "level"

    def _dim(self, s: Source) -> int:
        """What a free source adds beyond directions that nobody sees."""
        if not all(self._hides(p) for p in self.pivots.get(s.id, ())):
            return s.size
        free = [o for o in self.sources if o.id not in self.solved and o.id not in self.dead]
        return extent(s, self.unseen.get(s.block.id), self.shared.get(s.block.id), free)


def shifts(
    blocks: Blocks,
    relations: list[Relation],
    tolerance: dict[int, Tolerance],
    known: dict[int, Known],
    seen: tuple[Unseen, ...],
    shared: tuple[Joint, ...] = (),
    mode: str = "full",
    apart: frozenset[int] = frozenset(),
) -> Shifts:
    """A translation is handed on as far as it goes, for what is behind may absorb it; where nothing does, it is taken up
    where it arose, if that leaves more. What maps take to nothing is counted on top (`beyond`).

    apart: values (ids) that parameters are read into without their translations."""
    early: frozenset[int] = frozenset()
    best: Shifts | None = None
    most, together = 0, frozenset[int]()
    while True:
        solver = _Solver(blocks, relations, tolerance, known, seen, shared, mode, early, apart=apart)
        found = solver.run()
        if mode == "full" and found.lost and not apart:
            bound = _Solver(blocks, relations, tolerance, known, seen, shared, mode, early, bind=True).run()
            if bound.dim + bound.beyond > most:
                most, together = bound.dim + bound.beyond, bound.together
        if best is not None and found.dim <= best.dim:
            break
        best = found
        if solver.regrets <= early:
            break
        early = early | solver.regrets
    return replace(best, beyond=most - best.dim, together=together) if most > best.dim else best
