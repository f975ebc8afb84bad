"""The pictures of docs/pathsum.md, computed anew: python -m benchmarks.pathsum_pictures FOLDER (about two minutes)."""

import sys
from pathlib import Path

import numpy as np

from regauge.pathsum import Target, covering, path_lattice, potential, solve
from regauge.pathsum.figure import cost_panel, write_figure
from regauge.pathsum.svg import svg
from regauge.pathsum.unfixed import cost_of_not_fixing

SIGMAS = (0.1, 0.25, 0.5, 1.0, 2.0)


def main(folder: Path) -> None:
    for name, text in (("quartic", "x**2/2 + x**4"), ("double-well", "(x**2-2)**2/4")):
        write_figure(solve(text), folder / f"pathsum-{name}.svg", force=True)
    lattice, v = path_lattice(10.0, 64), potential("x**2/2 + x**4")
    target = Target(lattice, v, covering(lattice, v).map(lattice))
    costs = cost_of_not_fixing(target, SIGMAS, np.random.default_rng(0))
    for cost in costs:
        print(cost)
    (folder / "pathsum-gauge.svg").write_text(svg([cost_panel(costs)]), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
