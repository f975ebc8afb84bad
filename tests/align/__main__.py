"""Scores of `align` and `sketch` on pairs that their thresholds were not chosen on.

    python -m tests.align [--seeds N] [--first SEED] [FAMILY ...]

For each pair the verdict and the numbers that it was made from; then, for each threshold, the nearest scores on both sides.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

from regauge.align import DERIVED, GAUGE_EQUAL, UNRELATED, align
from regauge.align.api import HALF
from regauge.align.sketch import NEAR, RELATED, sketch
from regauge.align.verdict import MARGIN, WORST
from tests.align.heldout import FAMILIES, gauge_of, pairs

WANTED = {"equal": GAUGE_EQUAL, "derived": DERIVED, "unrelated": UNRELATED}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("families", nargs="*", default=FAMILIES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    options = parser.parse_args()
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    wrong = []
    for name in options.families:
        gauge = gauge_of(name)
        for seed in range(options.first, options.first + options.seeds):
            for p in pairs(name, gauge, seed):
                found = align(gauge, p.a, p.b)
                total = found.residual / max(found.floor, 1e-300)
                worst = max((r.residual / r.floor if r.residual else 0.0) for r in found.rows if r.floor or r.residual)
                near = sketch(gauge, p.a, "").similarity(sketch(gauge, p.b, ""))
                gap = None if found.chance is None else (1 - found.similarity) / (1 - found.chance)
                scores["residual / floor", p.relation].append(total)
                scores["the same, worst tensor", p.relation].append(worst)
                scores["similarity of sketches", p.relation].append(near)
                if gap is not None:
                    scores["left of what chance leaves", p.relation].append(gap)
                right = found.verdict == WANTED[p.relation]
                wrong += [] if right else [f"{name}, seed {seed}, {p.what}: {found.verdict}"]
                print(
                    f"{name:11} {seed} {p.relation:9} {p.what:28} {found.verdict:11} {'' if right else '!!!':3} "
                    f"residual/floor {total:9.3g} worst {worst:9.3g} left {'--' if gap is None else f'{gap:.3f}':>6} "
                    f"sketch {near:7.4f}",
                    flush=True,
                )
    limits = {
        "residual / floor": f"equal up to {MARGIN}",
        "the same, worst tensor": f"equal up to {WORST}",
        "left of what chance leaves": f"related below {HALF}",
        "similarity of sketches": f"near from {NEAR}, related from {RELATED}",
    }
    print()
    for score, limit in limits.items():
        for relation in WANTED:
            held = sorted(scores[score, relation])
            if held:
                print(
                    f"{score:27} {relation:9} n {len(held):3}  least {held[0]:9.3g}  median {held[len(held) // 2]:9.3g}  "
                    f"largest {held[-1]:9.3g}   ({limit})"
                )
    print(f"\n{len(wrong)} wrong" + "".join(f"\n  {w}" for w in wrong))


if __name__ == "__main__":
    main()
