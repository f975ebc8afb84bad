"""`python -m tests.fuzz`: random networks by number. A number and a seed make the same network every time.

--draws N --start K --seed S   which networks      --part I/M    every M-th of them, from the I-th
--record FILE                  one line of JSON a network; what is there already is not run again
--show K                       print network K and its verdict, and stop
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

from tests.fuzz.networks import Network, random_network
from tests.fuzz.shrink import shrunk
from tests.fuzz.verdict import Verdict, verdict


def numbered(seed: int, number: int) -> Network:
    return random_network(random.Random(f"{seed}:{number}").choice)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--show", type=int)
    parser.add_argument("--no-tight", action="store_true", help="soundness only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if options.show is not None:
        network = numbered(options.seed, options.show)
        found = verdict(network)
        print(network, found, sep="\n")
        if found.bad:
            small = shrunk(network, lambda n: verdict(n, tight=found.kind == "OVERCOUNTED").kind == found.kind)
            print("\nthe smallest with this fault:", small, verdict(small), sep="\n")
        return 0
    index, parts = map(int, options.part.split("/"))
    numbers = range(options.start + index, options.start + options.draws, parts)
    done = known(options.record)
    counts: Counter[str] = Counter()
    bad: list[int] = []
    begun, fresh = time.perf_counter(), 0
    for n in numbers:
        if n in done:
            v = done[n]
        else:
            v = verdict(numbered(options.seed, n), tight=not options.no_tight)
            fresh += 1
            if options.record:
                with options.record.open("a") as file:
                    file.write(json.dumps({"number": n, **v.record()}) + "\n")
        counts[v.kind] += 1
        counts["measured"] += v.nullity is not None
        counts["tight"] += v.nullity is not None and v.gap == 0
        if v.bad:
            bad.append(n)
            print(f"network {n}: {v}", flush=True)
        if fresh and fresh % 50 == 0 and n not in done:
            print(summary(counts, fresh / (time.perf_counter() - begun)), file=sys.stderr, flush=True)
    print(summary(counts, fresh / max(1e-9, time.perf_counter() - begun)))
    return 1 if bad else 0


def known(record: Path | None) -> dict[int, Verdict]:
    if record is None or not record.exists():
        return {}
    entries = [json.loads(line) for line in record.read_text().splitlines()]
    return {e.pop("number"): Verdict(**e) for e in entries}


def summary(counts: Counter[str], rate: float) -> str:
    kinds = {k: n for k, n in counts.items() if k not in ("measured", "tight")}
    listed = ", ".join(f"{n} {k}" for k, n in sorted(kinds.items(), key=lambda e: -e[1]))
    return f"{sum(kinds.values())} networks: {listed}; {counts['tight']} of {counts['measured']} tight; {rate:.1f} a second"


if __name__ == "__main__":
    sys.exit(main())
