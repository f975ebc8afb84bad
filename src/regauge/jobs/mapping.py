"""The mapping that quantisation tools keep by hand: which modules write and read what is rotated, read off the gauge.

A role is told by the group, never by a name: what reads and writes the widest orthogonal bond, and what is between. Where a
model does not fit the form that a tool has, that is an error that says what does not fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from torch import nn

import regauge
from regauge.act.select import frames_of, sources, top
from regauge.checkpoint import open_model
from regauge.errors import InputError
from regauge.graph.ir import Param
from regauge.graph.posing import posing_as_cpu
from regauge.jobs.source import names_of
from regauge.solve.bonds import Bond
from regauge.solve.gauge import Gauge

TOOLS = ("llmcompressor", "autoround")
NOTES = {
    "llmcompressor": (
        "SpinQuantModifier ignores the arguments mappings= and norm_mappings= (0.14) without a word: put "
        "SpinQuantMapping(**mapping) into SPINQUANT_MAPPING_REGISTRY[architecture], and the list of NormMapping(**entry) into "
        "NORM_MAPPING_REGISTRY[architecture], before oneshot().",
        "It also subtracts the mean of every embedding row, which is a symmetry only where every norm removes the mean. Here "
        "none does, so that step changes the function: switch it off with "
        "SpinQuantModifier._center_embeddings = lambda self, model: None.",
        'Its transform_type="hadamard" (the default) fails at sizes that are no powers of two, such as 576: use '
        '"random-hadamard". Not "random-matrix": its matrices are not orthogonal, and R1 then changes the function.',
    ),
    "autoround": (
        "register_mapping(architecture, RotationMapping(**mapping)) before AutoRound(...). A mapping that is registered for the "
        "model_type of the configuration goes before one for the architecture: register it under both.",
        "It also turns units and heads at run time, so their numbers must be orders of its Hadamard matrices, as the width must.",
    ),
}
WAY_OUT = "`regauge apply --untie --fold --rotate hadamard` does the same to the files, for every model, with a proof."


@dataclass(frozen=True)
class Roles:
    """Modules by what they do on the stream. norms: (norm, what reads it)."""

    embeddings: tuple[str, ...]
    heads: tuple[str, ...]
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    values: tuple[str, ...]
    outputs: tuple[str, ...]
    ins: tuple[str, ...]
    outs: tuple[str, ...]
    norms: tuple[tuple[str, tuple[str, ...]], ...]


def export_mapping(spec: str, tool: str) -> dict[str, Any]:
    """The mapping of a model for "llmcompressor" (SpinQuantModifier) or "autoround" (Hadamard rotation), as plain data:
    `mapping`, `norm_mappings` for the first, `architecture` to register it under, and `notes` on what a user must do.

    spec: as for `open_model`; no weights are read. Raises InputError where the model does not fit the tool's form.
    """
    if tool not in TOOLS:
        raise InputError(f"--for {tool}: expected one of {', '.join(TOOLS)}")
    sample = open_model(spec).skeleton()
    model = sample.model
    if any(len(names) > 1 for names in names_of(model)):
        separate(model)
    with posing_as_cpu(model):
        gauge = regauge.infer(model, sample.args, sample.kwargs)
    found = roles(gauge, model, spec)
    mapping = for_llmcompressor(found) if tool == "llmcompressor" else for_autoround(found, model, spec)
    mapping["mapping"]["attn_head_dim"] = getattr(model.config, "head_dim", None)
    return {"tool": tool, "architecture": type(model).__name__, **mapping, "notes": [*NOTES[tool], WAY_OUT]}


def separate(model: nn.Module) -> None:
    """Both tools untie before they rotate: every name gets a parameter of its own."""
    seen: set[int] = set()
    for module in model.modules():
        for name, p in list(module._parameters.items()):
            if p is not None and id(p) in seen:
                module._parameters[name] = nn.Parameter(torch.empty_like(p), requires_grad=False)
            seen.add(id(p))


def roles(gauge: Gauge, model: nn.Module, spec: str) -> Roles:
    """Every matrix on the stream by its role. Raises InputError for one that has none of these."""
    stream = sources(gauge, "stream")
    turning = {s.root for s in stream}
    on = frames_of(gauge)
    wide = [b for b in gauge.bonds if turning & set(on.get(b.name, ()))]
    if len(stream) != 1:
        raise InputError(
            f"{spec}: {len(stream)} bonds of the same width turn by themselves: these tools know one stream"
        )
    if stream[0].kind != "O":
        raise InputError(
            f"{spec}: its norms remove the mean, and these tools fold norms that do not: use `regauge apply`"
        )
    touches = [t for b in wide for t in b.touches]
    shape = gauge.parameters
    linear = {t.parameter: t for t in touches if len(shape[t.parameter]) == 2}
    modules = dict(model.named_modules())
    for name in linear:
        kind = modules[module_of(name)]
        if not isinstance(kind, nn.Linear | nn.Embedding):
            raise InputError(f"{spec}: {name} is on the stream and belongs to a {type(kind).__name__}: these tools turn "
                             "Linear and Embedding only; use `regauge apply`")  # fmt: skip
    embeddings = [n for n in linear if isinstance(modules[module_of(n)], nn.Embedding)]
    writers = [n for n, t in linear.items() if n not in embeddings and t.axis == 0]
    readers = [n for n, t in linear.items() if n not in embeddings and t.axis == 1]
    inner = {n: other_bond(gauge, n, wide) for n in (*writers, *readers)}
    heads = [n for n in readers if inner[n] is None]
    frames = {b.name: {gauge.plan.sources[r].kind for r in on.get(b.name, ())} for b in gauge.bonds}
    partners = {n: held_by(inner[n], writers) for n in readers}
    values = [n for n in readers if partners[n] and matrix_like(frames, inner[n])]
    outputs = sorted({w for n in values for w in partners[n]}, key=list(linear).index)
    ins = [n for n in readers if partners[n] and n not in values]
    outs = [w for w in writers if w not in outputs]
    scores = [n for n in readers if inner[n] is not None and not partners[n]]
    queries, keys = split_scores(scores, inner)
    norms = norms_of(gauge, set(linear), turning, spec)
    gains = {n for n, _ in norms}
    odd = [t.parameter for t in touches if t.parameter not in linear and module_of(t.parameter) not in gains]
    if odd:
        raise InputError(f"{spec}: {odd[0]} is on the stream and is neither a matrix nor a gain: use `regauge apply`")
    return Roles(
        tuple(module_of(n) for n in embeddings), tuple(map(module_of, heads)), tuple(map(module_of, queries)),
        tuple(map(module_of, keys)), tuple(map(module_of, values)), tuple(map(module_of, outputs)),
        tuple(map(module_of, ins)), tuple(map(module_of, outs)), norms,
    )  # fmt: skip


def module_of(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def other_bond(gauge: Gauge, name: str, wide: list[Bond]) -> Bond | None:
    """What a matrix shares with others on its other axis; None where nothing moves (a vocabulary)."""
    held = [b for b in gauge.bonds if b not in wide and any(t.parameter == name for t in b.touches)]
    return next((b for b in held if len({t.parameter for t in b.touches}) > 1), None)


def held_by(bond: Bond | None, names: Iterable[str]) -> list[str]:
    touched = {t.parameter for t in bond.touches} if bond else set()
    return [n for n in names if n in touched]


def matrix_like(frames: dict[str, set[str]], bond: Bond | None) -> bool:
    """Whether whole matrices act between a reader and a writer: values and outputs of attention, not units."""
    return bond is not None and bool(frames[bond.name] & {"GL", "O"})


def split_scores(scores: list[str], inner: dict[str, Bond | None]) -> tuple[list[str], list[str]]:
    """Queries and keys: on each bond the one that comes first in the model, and the other."""
    pairs: dict[str, list[str]] = {}
    for n in scores:
        bond = inner[n]
        assert bond is not None
        pairs.setdefault(bond.name, []).append(n)
    odd = [n for held in pairs.values() if len(held) != 2 for n in held]
    if odd:
        raise InputError(
            f"{odd[0]}: reads the stream and is neither query, key, value, unit nor head: use `regauge apply`"
        )
    return [held[0] for held in pairs.values()], [held[1] for held in pairs.values()]


def norms_of(gauge: Gauge, linear: set[str], turning: set[int], spec: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each gain on the stream, with the matrices behind it. Raises InputError for gains that the tools cannot fold."""
    plan = gauge.plan
    cells = plan.frames.cells
    readers: dict[int, set[str]] = {}
    for v in plan.parameters():
        assert isinstance(v.op, Param)
        for block in plan.blocks.of[v.id]:
            for k in range(len(block.leaves)):
                root = plan.frames.root[cells.cell(block, k)]
                if v.op.name in linear and root in plan.frames.derived and top(plan, root) in turning:
                    readers.setdefault(root, set()).add(v.op.name)
    found: list[tuple[str, tuple[str, ...]]] = []
    for root, names in readers.items():
        gain = gain_of(plan.frames.derived[root].link.gain.block.value)
        if gain is None or gain.chart.steps:
            what = (
                "a gain that is no parameter"
                if gain is None
                else f"{gain.name}, a gain that is computed as {gain.chart.steps}"
            )
            raise InputError(f"{spec}: {what}: these tools fold plain gains only; use `regauge apply --fold --rotate`")
        found.append((module_of(gain.name), tuple(module_of(n) for n in gauge.parameters if n in names)))
    return tuple(found)


def gain_of(v: Any) -> Param | None:
    """The parameter that a gain is, under whatever shape it is read."""
    while not isinstance(v.op, Param) and len(v.args) == 1:
        (v,) = v.args
    return v.op if isinstance(v.op, Param) else None


def pattern(names: Iterable[str]) -> list[str]:
    """Names as regular expressions, numbered layers folded into one."""
    found: dict[str, None] = {}
    for name in names:
        parts = [r"\d+" if p.isdigit() else re.escape(p) for p in name.split(".")]
        joined = r"\.".join(parts)
        found[f"re:^{joined}$" if r"\d+" in parts else name] = None
    return list(found)


def single(names: Iterable[str], what: str) -> str:
    found = pattern(names)
    if len(found) != 1:
        raise InputError(
            f"the model has {len(found)} kinds of {what} ({', '.join(found[:3])}): the tool's form holds one"
        )
    return found[0]


def filled(tool: str, by_role: dict[str, Any]) -> dict[str, Any]:
    """The tool's own fields, by what they mean."""
    forms = json.loads(resources.files("regauge.jobs").joinpath("forms.json").read_text(encoding="utf-8"))
    return {forms[tool][role]: value for role, value in by_role.items()}


def for_llmcompressor(r: Roles) -> dict[str, Any]:
    """The fields of SpinQuantMapping, and of NormMapping for each kind of norm."""
    attention = {q.rpartition(".")[0] for q in r.queries} & {o.rpartition(".")[0] for o in r.outputs}
    norms: dict[str, list[str]] = {}
    for norm, readers in r.norms:
        (key,) = pattern([norm])
        if norms.setdefault(key, pattern(readers)) != pattern(readers):
            raise InputError(f"{key}: not every layer has the same readers behind it: the tool's form holds one list")
    return {
        "mapping": filled(
            "llmcompressor",
            {
                "embedding": single(r.embeddings, "embedding"),
                "attention": single(sorted(attention), "attention"),
                "query": single(r.queries, "query"),
                "key": single(r.keys, "key"),
                "value": single(r.values, "value"),
                "output": single(r.outputs, "attention output"),
                "ins": pattern(r.ins),
                "outs": pattern(r.outs),
                "head": single(r.heads, "head"),
            },
        ),
        "norm_mappings": [{"norm": n, "linears": l} for n, l in norms.items()],
    }


def for_autoround(r: Roles, model: nn.Module, spec: str) -> dict[str, Any]:
    """The fields of RotationMapping: paths within a layer."""
    numbered = [re.match(r"(.*?)\.\d+\.", q) for q in r.queries]
    roots = {m[1] for m in numbered if m}
    if len(roots) != 1 or not all(numbered):
        raise InputError(f"{spec}: its layers do not stand in one list: the tool's form holds one")
    (root,) = roots

    def inside(names: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(re.sub(rf"^{re.escape(root)}\.\d+\.", "", n) for n in names))

    def one(names: Iterable[str], what: str) -> str:
        found = inside(names)
        if len(found) != 1:
            raise InputError(
                f"{spec}: has {len(found)} kinds of {what} ({', '.join(found[:3])}): the tool's form holds one"
            )
        return found[0]

    def before(readers: Iterable[str], what: str) -> str:
        wanted = set(readers)
        return one([n for n, held in r.norms if wanted & set(held)], what)

    return {
        "mapping": filled(
            "autoround",
            {
                "embedding": one(r.embeddings, "embedding"),
                "head": one(r.heads, "head"),
                "layers": root,
                "before_attention": before(r.queries, "norm before attention"),
                "query": one(r.queries, "query"),
                "key": one(r.keys, "key"),
                "value": one(r.values, "value"),
                "output": one(r.outputs, "attention output"),
                "before_units": before(r.ins, "norm before the units"),
                "ins": inside(r.ins),
                "outs": one(r.outs, "output of units"),
                "before_head": before(r.heads, "norm before the head"),
            },
        )
    }


__all__ = ["Roles", "export_mapping", "roles"]
