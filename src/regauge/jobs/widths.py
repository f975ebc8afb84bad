"""The entries of config.json that say how wide a layer of units is: found by lowering them, not by their names.

An entry sets the width of some bonds if lowering it makes the skeleton's shapes smaller along exactly their axes. Where one
entry sets many bonds, all of them can lose only as many units as the one that has the fewest to lose.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regauge.act.prune import Smaller, footprint
from regauge.act.removal import Removal
from regauge.act.units import Units, units
from regauge.checkpoint.pretrained import build, quiet, read_config
from regauge.checkpoint.skeleton import parameters_on_meta
from regauge.errors import InputError
from regauge.jobs.files import write_json
from regauge.jobs.source import Patch, patched
from regauge.solve.plan import Plan

Shapes = dict[str, tuple[int, ...]]
Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Fitted:
    """removals: what goes. patches: of the config. left: why other units stay, one sentence each."""

    removals: tuple[Removal, ...]
    patches: tuple[Patch, ...]
    left: tuple[str, ...]


def fit(folder: Path, scratch: Path, config: dict[str, Any], plan: Plan, removals: tuple[Removal, ...]) -> Fitted:
    """As many of the removals as entries of `config` can follow; writes the config that does into `scratch`.

    Raises InputError where none can, with the reasons."""
    trial = Trial(folder, scratch, config, plan)
    count = {r.root: r.count for r in removals}
    governed: dict[
        Path_, tuple[int, int, dict[int, int]]
    ] = {}  # entry -> its value, its step for one unit, units by set
    left: list[str] = []
    for r in removals:
        if any(r.root in sets for _, _, sets in governed.values()):
            continue
        found = next((f for f in trial.entries(r.size) if r.root in f[3]), None)
        if found is None:
            left.append(f"{r.bond}: no entry of config.json sets the width of this layer and nothing else")
        else:
            governed[found[0]] = found[1:]
    kept: dict[int, int] = {}
    patches: list[Patch] = []
    for path, (value, step, sets) in governed.items():
        fewest = min(sets, key=lambda root: count.get(root, 0) // sets[root])
        n = count.get(fewest, 0) // sets[fewest]
        name = ".".join(map(str, path))
        if n == 0:
            left.append(
                f"{name} = {value} sets the width of {len(sets)} layers together, and {trial.sets[fewest].name} has no unit "
                f"to lose ({sum(count.get(root, 0) > 0 for root in sets)} layers have)"
            )
            continue
        patches.append(Patch(path, trial.found(path), value - step * n))
        kept |= {root: n * m for root, m in sets.items()}
        more = sum(count[root] - n * sets[root] for root in sets)
        if more:
            left.append(f"{more} more redundant unit(s) stay: {name} sets one width for {len(sets)} layers")
    if not patches:
        raise InputError(f"{folder}: no redundant unit can be removed: {'; '.join(left)}")
    chosen = tuple(r.first(kept[r.root]) for r in removals if r.root in kept)
    smaller = Smaller(plan, chosen)
    if trial.shapes(patches) != {n: smaller.shape(n) for n in plan.shapes}:
        raise InputError(
            f"{folder}: {' and '.join('.'.join(map(str, p.path)) for p in patches)} change other shapes together than one by "
            "one: leave out prune-redundant"
        )
    return Fitted(chosen, tuple(patches), tuple(left))


class Trial:
    """Skeletons of a checkpoint under other configurations."""

    def __init__(self, folder: Path, scratch: Path, config: dict[str, Any], plan: Plan) -> None:
        self.folder, self.scratch, self.config, self.plan = folder, scratch, config, plan
        self.sets: dict[int, Units] = {u.root: u for u in units(plan)}
        self.footprints = {root: footprint(u) for root, u in self.sets.items()}
        self.canonical = {n: name for name in plan.shapes for n in (name, *plan.aliases.get(name, ()))}
        self.tried: dict[tuple[Path_, int], dict[int, int]] = {}
        scratch.mkdir(exist_ok=True)
        write_json(scratch / "config.json", config)
        self.defaults: dict[str, Any] = json.loads(json.dumps(read_config(scratch, None).to_dict(), default=str))

    def found(self, path: Path_) -> Any:
        """What config.json says there; None where it says nothing."""
        node: Any = self.config
        for key in path:
            node = node.get(key) if isinstance(node, Mapping) else node[int(key)]
        return node

    def entries(self, n: int) -> Iterator[tuple[Path_, int, int, dict[int, int]]]:
        """Each entry that may mean n units or a multiple: its path, its value, how much of it is one unit, and how many units
        of which sets that much is. What is left open (null) is tried last: its default may be n."""
        whole = [(p, v) for p, v in leaves(self.defaults, self.config) if type(v) is int and v > 0 and v % n == 0]
        for path, value in sorted(whole, key=lambda e: e[1]):
            yield path, value, value // n, self.lowered(path, value - value // n)
        for path, value in leaves(self.defaults, self.config):
            if value is None:
                yield path, n, 1, self.lowered(path, n - 1)

    def lowered(self, path: Path_, value: int) -> dict[int, int]:
        """set of units -> how many fewer it has; empty if anything else changes, or if there is no such model."""
        if (path, value) not in self.tried:
            try:
                after = self.shapes([Patch(path, None, value)])
            except (InputError, ValueError, TypeError, ZeroDivisionError):
                after = {}
            self.tried[path, value] = self._explained(after)
        return self.tried[path, value]

    def shapes(self, patches: list[Patch]) -> Shapes:
        """The shapes under a patched configuration, by the names of the gauge."""
        write_json(self.scratch / "config.json", patched(self.config, patches))
        with quiet(), parameters_on_meta():
            model = build(read_config(self.scratch, None), self.folder)
        found = {n: tuple(t.shape) for n, t in model.state_dict(keep_vars=True).items()}
        return {self.canonical[n]: s for n, s in found.items() if n in self.canonical}

    def _explained(self, after: Shapes) -> dict[int, int]:
        """The change of shapes as a sum of units of whole sets."""
        before = self.plan.shapes
        if after.keys() != before.keys() or any(len(after[n]) != len(s) for n, s in before.items()):
            return {}
        change = {(n, a): k - after[n][a] for n, s in before.items() for a, k in enumerate(s) if k != after[n][a]}
        sets: dict[int, int] = {}
        for root, axes in self.footprints.items():
            m = min(change.get(key, 0) // size for key, size in axes.items())
            if m > 0:
                sets[root] = m
        total: dict[tuple[str, int], int] = {}
        for root, m in sets.items():
            for key, size in self.footprints[root].items():
                total[key] = total.get(key, 0) + m * size
        return sets if total == change else {}


def leaves(full: Any, given: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Entries of a configuration with its defaults, in the parts that the file has."""
    if isinstance(full, Mapping) and isinstance(given, Mapping):
        for key, value in full.items():
            if isinstance(value, Mapping | list):
                yield from leaves(value, given.get(key), (*path, key))
            else:
                yield (*path, key), value
    elif isinstance(full, list) and isinstance(given, list):
        for i, value in enumerate(full):
            yield from leaves(value, given[i] if i < len(given) else None, (*path, i))
    elif path and not isinstance(full, Mapping | list):
        yield path, full


__all__ = ["Fitted", "fit"]
