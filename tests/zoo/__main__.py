"""`python -m tests.zoo [NAME ...] [--seeds N] [--no-infer] [--list]`: formula, nullity, and what infer says."""

from __future__ import annotations

import argparse
import fnmatch
import time
import traceback

from tests.zoo.registry import load, measure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", default=["*"], help="names or shell patterns")
    parser.add_argument("--seeds", type=int, default=3, help="generic points to try until the nullity is the formula")
    parser.add_argument("--no-infer", action="store_true", help="measure only")
    parser.add_argument("--no-nullity", action="store_true", help="infer only, compare with the formula")
    parser.add_argument("--terms", action="store_true", help="print what the inferred dimension is made of")
    parser.add_argument("--trace", action="store_true", help="print tracebacks of infer")
    parser.add_argument("--list", action="store_true", help="print the names and formulas' values")
    options = parser.parse_args()
    zoo = load()
    names = [n for n in zoo if any(fnmatch.fnmatch(n, p) for p in options.names or ["*"])]
    if options.list:
        print("\n".join(f"{n:40} {zoo[n].dim:6}" for n in names))
        return
    infer = None
    if not options.no_infer:
        try:
            from regauge import infer
        except ImportError:
            print("(no infer yet: measuring only)")
    for name in names:
        case, start = zoo[name], time.perf_counter()
        call = case.make()
        line = f"{name:40} formula {case.dim:5}"
        if not options.no_nullity:
            best = measure(case, call, options.seeds)
            flag = "" if best.nullity == case.dim else "  <-- NOT the formula"
            flag += "" if best.clear else "  UNCLEAR"
            line += (
                f"  nullity {best.nullity:5} of {sum(best.sizes):5}  ({best.above:.0e} | {best.below:.0e})"
                f"  dead {int(best.dead.sum())}{flag}"
            )
        if infer is not None:
            try:
                gauge = infer(call.model, call.args, call.kwargs, observe=call.observe)
                line += f"  infer {gauge.dim:5}" + ("" if gauge.dim == case.dim else f"  GAP {case.dim - gauge.dim}")
                if options.terms:
                    line += "".join(f"\n    {t}" for t in gauge.terms)
            except Exception as error:
                line += f"  infer: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                if options.trace:
                    traceback.print_exc()
        print(f"{line}  [{time.perf_counter() - start:.1f} s]", flush=True)


if __name__ == "__main__":
    main()
