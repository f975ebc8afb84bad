"""The page of the survey, made from its records."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from .reasons import REASONS

Record = dict[str, Any]
TITLES = {
    "causal": "Causal language models",
    "other": "Encoders, encoder-decoders, vision, audio, several modalities",
    "plain": "Plain torch modules",
}


OLDER = "°"


def write_page(records: list[Record], path: Path, compiler: str, registered: dict[str, int]) -> None:
    """Write the page; the folder is made if it is not there. `compiler`: the digest of the one at hand. `registered`:
    how many types of each kind there are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        kinds[record["kind"]].append(record | {"older": record.get("compiler") != compiler})
    parts = [HEADER, overview(kinds, registered)]
    for kind, title in TITLES.items():
        if kinds[kind]:
            parts.append(f"## {title}\n")
            parts += [section(kinds[kind]) for section in (unsound, gaps, missing, table)]
    path.write_text("\n".join(p for p in parts if p))


HEADER = """# Survey

Made by `python benchmarks/survey.py`; do not edit. Every type that transformers registers is built tiny, with random
generic weights, traced, compiled and proved from both sides: *sound* is the largest relative change of the output under
sampled elements of the whole group, in float64 with upcasts lifted; *gap* is the nullity of the Jacobian minus the
dimension of the group on a copy small enough to factorise (0: tight; empty: not measured, or no copy is small enough).
Types that cannot be built without another package, or without inputs that only a processor can make, are listed as not
built. A record with the mark ° was made by an older version of the compiler. Seconds are of one processor.
"""


def overview(kinds: dict[str, list[Record]], registered: dict[str, int]) -> str:
    rows = [
        "| kind | examined | older ° | built | traced | compiled | sound | tight | tracing, s | inference, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, title in TITLES.items():
        rs = kinds.get(kind, [])
        if not rs:
            continue
        compiled = [r for r in rs if "dim" in r]
        tested = [r for r in compiled if r.get("tight") is not None]
        rows.append(
            f"| {title} | {len(rs)} of {registered.get(kind, len(rs))} | {sum(r['older'] for r in rs)} "
            f"| {sum('parameters' in r for r in rs)} | {sum('nodes' in r for r in rs)} "
            f"| {len(compiled)} | {sum(r['sound'] for r in compiled)} "
            f"| {sum(r['tight'] for r in tested)} of {len(tested)} "
            f"| {_median(rs, 'trace_seconds')} | {_median(rs, 'infer_seconds')} |"
        )
    return "\n".join(rows) + "\n"


def _median(records: list[Record], key: str) -> str:
    values = [r[key] for r in records if key in r]
    return f"{median(values):.2f}" if values else ""


def unsound(records: list[Record]) -> str:
    bad = [r for r in records if r.get("sound") is False]
    lines = [f"- `{r['name']}`: the output changes by {r['unsoundness']:.1e}" for r in bad]
    return "\n".join(["**Unsound:**", "", *lines]) + "\n" if lines else ""


def gaps(records: list[Record]) -> str:
    """Where dimension and nullity differ; negative: the dimension counts directions that move nothing."""
    lines = [
        f"- `{r['name']}`: {r['gap']} of {r['nullity']} directions: {REASONS.get(r['name'], 'not looked into yet')}."
        for r in records
        if r.get("tight") is False
    ]
    return "\n".join(["Not tight (nullity minus dimension):", "", *lines]) + "\n" if lines else ""


def missing(records: list[Record]) -> str:
    """Operators without a rule, with the number of types that each keeps from compiling."""
    needs = [r["missing"] for r in records if r.get("missing")]
    if not needs:
        return ""
    use = Counter(op for ops in needs for op in ops)
    alone = Counter(ops[0] for ops in needs if len(ops) == 1)
    lines = [f"| `{op}` | {n} | {alone[op]} |" for op, n in use.most_common()]
    return "\n".join(["| operator without a rule | types | the only one of |", "| --- | ---: | ---: |", *lines]) + "\n"


def table(records: list[Record]) -> str:
    rows = [
        "| type | parameters | nodes | trace, s | infer, s | dim | sound | gap | what breaks the rest, first |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    rows += [_row(r) for r in sorted(records, key=lambda r: r["name"])]
    return "\n".join(rows) + "\n"


def _row(r: Record) -> str:
    if "error" in r:
        note = f"{r.get('stage', r.get('kind'))}: " + plain(r["error"])[:110].replace("|", "/")
    else:
        first = next(iter(r.get("obstructions", ())), {"text": "", "cost": ""})
        note = "; ".join(part for part in (first["text"], first["cost"]) if part).replace("|", "/")
        note = f"(reads {', '.join(r['inputs'])}) {note}" if r.get("inputs") else note
    gap = "" if r.get("tight") is None else str(r["gap"])
    sound = f"{r['unsoundness']:.0e}" if "unsoundness" in r else ""
    cells = [
        r.get("parameters", ""),
        r.get("nodes", ""),
        r.get("trace_seconds", ""),
        r.get("infer_seconds", ""),
        r.get("dim", ""),
        sound,
        gap,
        note,
    ]
    return f"| `{r['name']}`{OLDER if r['older'] else ''} | " + " | ".join(str(c) for c in cells) + " |"


def plain(error: str) -> str:
    """The first line with words, without the place on the machine that measured it."""
    first = next((line for line in error.split("\n") if line.split(":")[-1].strip()), error)
    return re.sub(r"(?:[\w.-]*/){2,}(?=[\w.-]+)", "", first).strip()
