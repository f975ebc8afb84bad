"""The survey: what regauge makes of every architecture that can be built.

    python benchmarks/survey.py                         # all kinds, both proofs; resumes where it stopped
    python benchmarks/survey.py --kind causal --only llama "gpt*" --again
    python benchmarks/survey.py --stale                 # redo what another version of the compiler answered
    python benchmarks/survey.py --page                  # only write docs/survey.md from the records

Records are one JSON file for each subject under ``benchmarks/survey_records``; the page is made from them and never
edited. A record is reused unless ``--again`` is given or it lacks a stage that is asked for. It holds a digest of the
compiler that made it, so that the page can say which records an older one made.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import json
import sys
from pathlib import Path
from typing import Any

from survey_parts.examine import examine
from survey_parts.page import write_page
from survey_parts.version import compiler_digest
from survey_parts.workers import run_all

HERE = Path(__file__).parent
KINDS = ("causal", "other", "plain")


def main() -> int:
    options = parse()
    records, page = Path(options.records), Path(options.docs)
    if not options.page:
        for kind in options.kind:
            survey(kind, options, records)
    write_page(load(records), page, compiler_digest(), {kind: len(subjects(kind)) for kind in KINDS})
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--only", nargs="*", help="names of subjects, or patterns, in this order")
    parser.add_argument("--stages", nargs="+", choices=("trace", "infer", "tight"), default=["trace", "infer", "tight"])
    parser.add_argument("--again", action="store_true", help="do not reuse records")
    parser.add_argument("--stale", action="store_true", help="redo records that another compiler made")
    parser.add_argument(
        "--failed", action="store_true", help="redo records that hold an error, are unsound or unmeasured"
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each subject")
    parser.add_argument("--records", default=str(HERE / "survey_records"))
    parser.add_argument("--docs", default=str(HERE.parent / "docs" / "survey.md"))
    parser.add_argument("--page", action="store_true", help="only write the page")
    return parser.parse_args()


def survey(kind: str, options: argparse.Namespace, records: Path) -> None:
    """Examine the subjects of one kind that have no record yet, and write each record as it comes."""
    folder = records / kind
    folder.mkdir(parents=True, exist_ok=True)
    digest = compiler_digest()
    every = subjects(kind)
    names = list(dict.fromkeys(n for p in options.only or ["*"] for n in fnmatch.filter(every, p)))
    wanted = [n for n in names if options.again or lacking(folder / f"{n}.json", options, digest)]
    known = {} if options.again else {n: standing(folder / f"{n}.json", digest) for n in wanted}
    job = functools.partial(_job, kind, frozenset(options.stages), known)
    for done, (name, record) in enumerate(run_all(job, wanted, options.jobs, options.limit), 1):
        record = {"name": name, "kind": kind, "compiler": digest} | record
        (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        print(f"{done}/{len(wanted)} {kind} {name}: {summary(record)}", flush=True)


def lacking(path: Path, options: argparse.Namespace, digest: str) -> bool:
    """Whether a subject is to be examined: for the first time, further, or anew."""
    if not path.exists():
        return True
    record = json.loads(path.read_text())
    if options.stale and record.get("compiler") != digest:
        return True
    if "error" in record or record.get("sound") is False or record.get("tight", 0) is None:
        return bool(options.failed)
    shows = {"trace": "nodes", "infer": "dim", "tight": "tight"}
    return any(shows[s] not in record for s in options.stages)


def standing(path: Path, digest: str) -> dict[str, Any]:
    """What can be kept of a record: all of it, if the same compiler made it without faults, or what was measured."""
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    faulty = "error" in record or record.get("sound") is False or record.get("tight", 0) is None
    return {"copies": record.get("copies", [])} if faulty or record.get("compiler") != digest else record


def _job(kind: str, stages: frozenset[str], known: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    return examine(kind, name, stages, known.get(name))


def subjects(kind: str) -> list[str]:
    if kind == "causal":
        from survey_parts.build import causal_types

        return list(causal_types())
    if kind == "other":
        from survey_parts.others import other_types

        return list(other_types())
    from survey_parts.plain import plain_modules

    return list(plain_modules())


def summary(record: dict[str, Any]) -> str:
    if "error" in record:
        return f"{record.get('stage', record.get('kind'))}: {record['error'][:160]!r}"
    words = [f"{record.get('nodes')} nodes"]
    if "dim" in record:
        words.append(f"dim {record['dim']}, unsoundness {record['unsoundness']:.0e}")
    if record.get("tight") is not None:
        words.append("tight" if record["tight"] else f"gap {record['gap']}")
    return ", ".join(words)


def load(records: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for kind in KINDS for p in sorted((records / kind).glob("*.json"))]


if __name__ == "__main__":
    sys.exit(main())
