"""Fewer function evaluations: train a small flow-matching model, tune its gauge, look at the samples.

    python examples/demo_flow.py [--data moons] [--solver euler] [--out demo-flow.svg]

Trains in seconds, then tunes the gauge for 4, 8 and 16 evaluations. The picture shows, column by column, the original
and the tuned sampler from the same noise at the same number of evaluations, and the exact flow; the colour says which
quadrant of the noise a sample started in. The exact flow is as good as the model: a gauge does not change it.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from rich.progress import Progress

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import flow_models as models  # noqa: E402

from regauge import flow  # noqa: E402
from regauge.flow.picture import Panel, scatter_svg  # noqa: E402
from regauge.flow.solvers import METHODS  # noqa: E402
from regauge.flow.tune import reference  # noqa: E402

BUDGETS = (4, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("moons", "mixture", "checkerboard"), default="moons")
    parser.add_argument("--solver", choices=sorted(METHODS), default="euler")
    parser.add_argument("--out", type=Path, default=Path("demo-flow.svg"))
    options = parser.parse_args()

    clock = time.perf_counter()
    print(f"training a flow-matching model on {options.data} (3 x 128 units, 4000 steps) ...", flush=True)
    model = models.train(options.data, seed=0)
    rng = torch.Generator().manual_seed(1)
    noise, fresh, data = (
        torch.randn(2048, 2, generator=rng),
        torch.randn(2000, 2, generator=rng),
        models.DATA[options.data][1](2000, rng),
    )
    targets, _ = reference(model, noise, 1e-5)
    exact, _ = reference(model, fresh, 1e-5)

    print(f"\n{options.solver}: rmse from the exact flow, energy distance to the data, on fresh noise")
    print(f"{'evaluations':>11} {'original':>19} {'tuned':>19}   gauge")
    columns = []
    for budget in BUDGETS:
        steps = max(budget // METHODS[options.solver].stages, 1)
        with Progress(transient=True, disable=not sys.stdout.isatty()) as progress:
            task = progress.add_task("tuning", total=None)
            tuned = flow.tune(
                model,
                noise,
                options.solver,
                steps,
                targets=targets,
                options=flow.TuneOptions(smooth_iterations=15, step_iterations=25, starts=4 if budget == 4 else 1),
                progress=lambda label, done, total, p=progress, t=task: p.update(
                    t, description=label, completed=done, total=total
                ),
            )
        with torch.no_grad():
            ends = flow.integrate(model, fresh, options.solver, steps), tuned.model.sample(fresh)
        errors = [float((e - exact).square().sum(-1).mean().sqrt()) for e in ends]
        cells = [f"{error:9.4f} {models.energy_distance(e, data):9.4f}" for error, e in zip(errors, ends, strict=True)]
        print(f"{tuned.model.evaluations:11d} {cells[0]} {cells[1]}   {tuned.chosen}", flush=True)
        columns.append((tuned.model.evaluations, ends, errors))
    print(f"{'exact flow':>11} {0:9.4f} {models.energy_distance(exact, data):9.4f}")

    quadrant = (fresh[:, 0] > 0).long() + 2 * (fresh[:, 1] > 0).long()
    rows = [
        [Panel(f"{label}, {n} evals: rmse {errors[i]:.2g}", ends[i], quadrant) for n, ends, errors in columns]
        for i, label in enumerate(("original", "tuned"))
    ]
    rows[0].append(Panel("exact flow", exact, quadrant))
    rows[1].append(Panel("data", data, torch.full((len(data),), 5)))
    options.out.write_text(scatter_svg(rows, 2.7), encoding="utf-8")
    print(f"\npicture: {options.out}   ({time.perf_counter() - clock:.0f} s)")


if __name__ == "__main__":
    main()
