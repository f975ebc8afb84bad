"""Untying: a tensor in two roles becomes two tensors of equal value, each free to move.

The function stays, the group grows: a tied embedding and head, once apart, let the stream rotate. What changes is the list of
tensors, and the config that tells loaders to tie them again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from regauge.errors import InputError
from regauge.graph.build import Builder
from regauge.graph.ir import Graph, Param, Value
from regauge.solve.bonds import sides
from regauge.solve.edits import Changes, rebuilt
from regauge.solve.gauge import Gauge
from regauge.solve.passes import solve
from regauge.solve.plan import Plan

Path = tuple[str | int, ...]
TIES = re.compile(r"(?=.*embed).*(tie|tied|tying)(_|$)|^weight_tying$", re.IGNORECASE)
USUAL = "tie_word_embeddings"  # where a config says nothing, loaders of this family take it as true


@dataclass(frozen=True)
class Patch:
    """One entry of a config: where, what it said (None: nothing), and what it must say."""

    path: Path
    old: Any
    new: Any

    def __str__(self) -> str:
        where = ".".join(map(str, self.path))
        return f"{where}: {'absent' if self.old is None else self.old} -> {self.new}"


@dataclass(frozen=True)
class Untied:
    """gauge: of the model with the tie lifted. state: with the copies. copies: new name -> the name that it was tied to.
    patches: entries of the config that would tie them again."""

    gauge: Gauge
    state: Mapping[str, Tensor]
    copies: Mapping[str, str]
    patches: tuple[Patch, ...] = field(default=())


def untie(gauge: Gauge, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> Untied:
    """Lift every tie of a tensor that is read in two roles under names of its own.

    The state gains each missing name (a copy in memory; `copies` tells a streaming writer which), and the group is inferred
    anew on the graph without the tie. Raises InputError where no tie can be lifted: none obstructs, or one module is used
    twice, so that there is no second name.
    """
    plan = gauge.plan
    graph, aliases = plan.graph, dict(plan.aliases)
    copies: dict[str, str] = {}
    shared: list[str] = []
    for v in tied(plan):
        assert isinstance(v.op, Param)
        name = v.op.name
        names = _owners(plan, v)
        if len(set(names)) < 2:
            shared.append(name)
            continue
        now = next(x for x in graph.values if isinstance(x.op, Param) and x.op.name == name)
        graph = rebuilt(graph, _copies(graph, now, names))
        held = aliases.pop(name, (name,))
        for n in dict.fromkeys(names):
            aliases[n] = (n,)
            if n != name:
                copies[n] = name
        aliases[name] = tuple(n for n in held if n not in copies)
    if not copies:
        why = (
            f"{', '.join(shared)} is one tensor of one module that is used twice"
            if shared
            else "no tensor has two roles"
        )
        raise InputError(f"there is nothing to untie: {why}")
    new: dict[str, Tensor] = dict(state)
    for copy, name in copies.items():
        first = next((n for n in (name, *plan.aliases.get(name, ())) if n in state), None)
        if first is None:
            raise InputError(f"the state dict has no tensor {name}")
        new.setdefault(name, state[first])
        new[copy] = new[name].clone()
    made = Gauge(solve(graph, aliases), gauge.observe, gauge.frozen)
    return Untied(made, new, copies, () if config is None else config_patches(config))


def tied(plan: Plan) -> Iterator[Value]:
    """Parameters with two readers that see an axis from different sides."""
    role = sides(plan)
    users = plan.graph.consumers()
    for v in plan.parameters():
        seen = [role.get((b.id, k), set()) for b in plan.blocks.of[v.id] for k in range(len(b.leaves))]
        if len(users[v.id]) > 1 and any(len(r) > 1 for r in seen):
            yield v


def _owners(plan: Plan, v: Value) -> list[str]:
    """For each use of a parameter in order, the name by which its module calls it."""
    assert isinstance(v.op, Param)
    names = tuple(dict.fromkeys((v.op.name, *plan.aliases.get(v.op.name, ()))))
    out = []
    for x in plan.graph.values:
        for a in x.args:
            if a is v:
                module = x.source.operator.rpartition(" in ")[2]
                mine = [n for n in names if n.startswith(module + ".")]
                out.append(max(mine, key=len) if mine else names[0])
    return out


def _copies(graph: Graph, v: Value, names: list[str]) -> Changes:
    """One parameter for each name, in place of the uses of one."""
    made: dict[str, Value] = {}
    owner = {
        (x.id, i): names[k]
        for k, (x, i) in enumerate((x, i) for x in graph.values for i, a in enumerate(x.args) if a is v)
    }

    def fresh(b: Builder, x: Value, args: tuple[Value, ...]) -> Value:
        own = list(args)
        for i, a in enumerate(x.args):
            if a is v:
                assert isinstance(v.op, Param)
                name = owner[x.id, i]
                if name not in made:
                    made[name] = b._make(replace(v.op, name=name), (), v.shape, True, False)
                own[i] = made[name]
        return b.op(x.op, own, x.shape)

    return {user.id: fresh for user in graph.consumers()[v.id]}


def config_patches(config: Mapping[str, Any]) -> tuple[Patch, ...]:
    """What a config must say so that loaders do not tie again: every entry at any depth that means a tie of embeddings and is
    true, and `tie_word_embeddings` at the top where nothing is said."""
    found = list(_entries(config, ()))
    patches = [Patch(path, value, False) for path, value in found if value is True]
    if not any(path[-1] == USUAL and len(path) == 1 for path, _ in found):
        patches.append(Patch((USUAL,), None, False))
    return tuple(patches)


def _entries(data: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(data, Mapping):
        for key, value in data.items():
            if isinstance(value, bool) and TIES.search(str(key)):
                yield (*path, str(key)), value
            yield from _entries(value, (*path, str(key)))
    elif isinstance(data, list | tuple):
        for i, value in enumerate(data):
            yield from _entries(value, (*path, i))


def patched(config: Mapping[str, Any], patches: tuple[Patch, ...]) -> dict[str, Any]:
    """A copy of the config with the patches; everything else as it was, in its order."""

    def go(data: Any, path: Path) -> Any:
        mine = {p.path[-1]: p.new for p in patches if p.path[:-1] == path}
        if isinstance(data, Mapping):
            out = {k: go(v, (*path, str(k))) for k, v in data.items()}
            return {**out, **mine}
        if isinstance(data, list | tuple):
            return [go(v, (*path, i)) for i, v in enumerate(data)]
        return data

    made = go(config, ())
    assert isinstance(made, dict)
    return made
