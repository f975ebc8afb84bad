"""How many function evaluations a tuned gauge saves: four data sets, three seeds, four solvers.

    python benchmarks/flow.py run          # resumable: finished rows are kept in benchmarks/results/flow.jsonl
    python benchmarks/flow.py run --again  # measures the named cells again; the last row of a cell counts
    python benchmarks/flow.py [table]      # Markdown tables from those rows

Every model is trained from scratch (benchmarks/flow_models.py). Each row is one (data, seed, solver, evaluations).
The gauge is tuned and chosen on 8192 noises (rows without "noises": on 4096); what is reported is measured on 2048
further ones:

rmse     distance from the exact end points; "saving" is the number of evaluations that the original needs for the same
         rmse (log-log interpolation of its own ladder), divided by the evaluations used
energy   energy distance to 2000 fresh data points, with the exact flow's as the floor
"""

import argparse
import functools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import flow_models as models
import torch
from torch import Tensor

from regauge import flow
from regauge.flow.solvers import METHODS
from regauge.flow.tune import reference

HERE = Path(__file__).resolve().parent
ROWS = HERE / "results" / "flow.jsonl"
SOLVERS = ("euler", "midpoint", "rk4", "rk4_38")
BUDGETS = (8, 4, 16)
NOISES = 8192
Pair = tuple[Tensor, Tensor]
LADDER = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def rms(x: Tensor, y: Tensor) -> float:
    return float((x - y).square().sum(-1).mean().sqrt())


def ladder(
    model: models.Velocity, solver: str, noise: Tensor, exact: Tensor, data: Tensor
) -> list[tuple[int, float, float]]:
    """(evaluations, rmse, energy distance) of the original with this solver."""
    stages, rows = METHODS[solver].stages, []
    for evaluations in LADDER:
        if evaluations % stages == 0:
            end = flow.integrate(model, noise, solver, evaluations // stages)
            rows.append((evaluations, rms(end, exact), models.energy_distance(end[:2000], data)))
    return rows


def equivalent(rows: Sequence[tuple[int, float, float]], rmse: float) -> float:
    """Evaluations at which the original's ladder reaches this rmse; extrapolated with its last slope."""
    pairs = list(zip(rows, rows[1:], strict=False))
    for (a, first, _), (b, second, _) in pairs:
        if second <= rmse or (a, b) == (pairs[-1][0][0], pairs[-1][1][0]):
            share = math.log(first / rmse) / math.log(first / second)
            return math.exp(math.log(a) + share * math.log(b / a))
    raise AssertionError("a ladder has at least two rungs")


@functools.cache
def problem(name: str, seed: int, cache: Path) -> tuple[models.Velocity, Pair, Pair, Tensor, float]:
    """(model, noises and exact ends to tune on, others to test on, data, error of the exact ends)."""
    model = models.trained(name, seed, cache)
    dim, sample = models.DATA[name]
    rng = torch.Generator().manual_seed(77 + seed)
    tuning, test = torch.randn(4096, dim, generator=rng), torch.randn(2048, dim, generator=rng)
    data = sample(2000, rng)
    tuning = torch.cat([tuning, torch.randn(NOISES - len(tuning), dim, generator=rng)])
    exact, error = reference(model, test, 1e-5)
    return model, (tuning, reference(model, tuning, 1e-5)[0]), (test, exact), data, error


def measure(name: str, seed: int, cache: Path, jobs: Sequence[tuple[str, int]]) -> list[dict[str, object]]:
    """All rows of one model, tuned and compared."""
    model, (tuning, targets), (test, exact), data, error = problem(name, seed, cache)
    floor = models.energy_distance(exact[:2000], data)
    rungs: dict[str, list[tuple[int, float, float]]] = {}
    rows = []
    for solver, evaluations in jobs:
        if solver not in rungs:
            rungs[solver] = ladder(model, solver, test, exact, data)
        steps, clock = evaluations // METHODS[solver].stages, time.perf_counter()
        tuned = flow.tune(model, tuning, solver, steps, targets=targets, options=flow.TuneOptions(seed=seed))
        seconds = time.perf_counter() - clock
        stateless = flow.integrate(
            flow.transport(model, tuned.model.gauge), tuned.model.gauge.encode(test), solver, steps
        )
        with torch.no_grad():
            ends = {
                "original": flow.integrate(model, test, solver, steps),
                "stateless": tuned.model.gauge.decode(stateless),
                "tuned": tuned.model.sample(test),
            }
        cosine = flow.from_condot(flow.Cosine())
        ends["cosine"] = cosine.decode(
            flow.integrate(flow.transport(model, cosine), cosine.encode(test), solver, steps)
        )
        row: dict[str, object] = {
            "data": name,
            "seed": seed,
            "solver": solver,
            "evaluations": evaluations,
            "noises": NOISES,
            "chosen": tuned.chosen,
            "stateless": tuned.model.gauge_name,
            "parameters": next(c.parameters for c in tuned.candidates if c.name == tuned.chosen),
            "seconds": round(seconds, 1),
            "reference_error": error,
            "energy_floor": floor,
            "ladder": rungs[solver],
            "results": {},
        }
        for label, end in ends.items():
            error_here = rms(end, exact)
            row["results"][label] = {  # type: ignore[index]
                "rmse": error_here,
                "saving": equivalent(rungs[solver], error_here) / evaluations,
                "energy": models.energy_distance(end[:2000], data),
            }
        rows.append(row)
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, seed, solver, evaluations, {k: f"{v['saving']:.2f}" for k, v in row["results"].items()}, flush=True)  # type: ignore
    return rows


def finished() -> list[dict[str, object]]:
    """The last row of every cell."""
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    return list({(r["data"], r["seed"], r["solver"], r["evaluations"]): r for r in rows}.values())


def run(
    seeds: Sequence[int],
    budgets: Sequence[int],
    names: Sequence[str],
    solvers: Sequence[str],
    cache: Path,
    again: bool = False,
) -> None:
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    have = set() if again else {(r["data"], r["seed"], r["solver"], r["evaluations"]) for r in finished()}
    for budget in budgets:
        for seed in seeds:
            for name in names:
                jobs = [(s, budget) for s in solvers if (name, seed, s, budget) not in have]
                if jobs:
                    measure(name, seed, cache, jobs)


def table() -> str:
    """Means over seeds, the range of the tuned saving in brackets."""
    rows, lines = finished(), []
    lines.append(
        "| data | solver | evals | seeds | rmse original | cosine | smooth | per-step | saving, smooth | per-step |"
    )
    lines.append("| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: |")
    energy = [
        "| data | solver | evals | original | cosine | smooth | per-step | exact flow |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for name in models.DATA:
        for solver in SOLVERS:
            for budget in sorted({r["evaluations"] for r in rows}):
                group = [r for r in rows if (r["data"], r["solver"], r["evaluations"]) == (name, solver, budget)]
                if not group:
                    continue

                def mean(label: str, key: str, group: list = group) -> float:
                    return sum(r["results"][label][key] for r in group) / len(group)

                def span(label: str, group: list = group) -> str:
                    values = sorted(r["results"][label]["saving"] for r in group)
                    middle = math.exp(sum(map(math.log, values)) / len(values))
                    return f"{middle:.2f} ({values[0]:.2f}-{values[-1]:.2f})" if len(values) > 1 else f"{middle:.2f}"

                errors = " | ".join(f"{mean(k, 'rmse'):.2g}" for k in ("original", "cosine", "stateless", "tuned"))
                savings = f"{span('stateless')} | {span('tuned')}"
                lines.append(f"| {name} | {solver} | {budget} | {len(group)} | {errors} | {savings} |")
                quality = " | ".join(f"{mean(k, 'energy'):.4f}" for k in ("original", "cosine", "stateless", "tuned"))
                floor = sum(r["energy_floor"] for r in group) / len(group)
                energy.append(f"| {name} | {solver} | {budget} | {quality} | {floor:.4f} |")
    return "\n".join(["Error against the exact flow:", "", *lines, "", "Energy distance to the data:", "", *energy])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="table", choices=("run", "table"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=SOLVERS)
    parser.add_argument("--data", nargs="+", default=list(models.DATA), choices=list(models.DATA))
    parser.add_argument("--cache", type=Path, default=HERE / "results" / "flow_models")
    parser.add_argument("--again", action="store_true", help="measure cells that are there already")
    options = parser.parse_args()
    if options.what == "run":
        torch.set_num_threads(1)
        run(options.seeds, options.budgets, options.data, options.solvers, options.cache, options.again)
    print(table())


if __name__ == "__main__":
    main()
