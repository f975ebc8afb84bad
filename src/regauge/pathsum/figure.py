"""Pictures of a path sum: sample paths in the potential's landscape, the correlator and the effective mass against
the exact ones.

`panels` are plain data; they become a self-contained SVG file here, or an interactive page through plotly (an
optional extra).
"""

import importlib.util
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regauge.errors import InputError
from regauge.pathsum.lattice import Array
from regauge.pathsum.observables import connected, correlator, effective_mass
from regauge.pathsum.sample import Average, WeightedSample, average, derived, resample
from regauge.pathsum.solve import PathSum
from regauge.pathsum.svg import Curve, Panel, svg
from regauge.pathsum.unfixed import Cost

PATHS = 8
COLOURS = ("#3b6fb6", "#d1603d", "#4f9d69", "#8a5fb0", "#c09a2b", "#4aa3b5", "#b5527f", "#6b6b6b")


@dataclass(frozen=True, eq=False)
class Series:
    """Estimates with errors along time, and the exact values where known, all (T,)."""

    times: Array
    value: Array
    error: Array
    exact: Array | None


def correlator_series(answer: PathSum, coordinate: int = 0) -> Series:
    """<x(0) x(t)> for all t up to half the period."""
    c = correlator(answer.lattice, answer.sample.paths)[..., coordinate, :]
    each = [average(answer.sample, c[..., t]) for t in range(c.shape[-1])]
    exact = None if answer.exact is None else answer.exact.correlator[coordinate]
    return _series(answer, range(len(each)), each, exact)


def mass_series(answer: PathSum, coordinate: int = 0) -> Series:
    """The effective mass from three neighbouring times (periodic lattices), as far as noise leaves a solution."""
    c, flat = connected(answer.lattice, answer.sample, coordinate)
    eps, at, each, exact = answer.lattice.time.spacing, [], [], []

    def gap(x: Array) -> float:
        return effective_mass(x[:3] - x[3] ** 2, 1, 1, eps)

    for t in range(1, c.shape[-1] - 1):
        found = derived(answer.sample, np.concatenate([c[..., t - 1 : t + 2], flat[..., None]], -1), gap)
        if not (np.isfinite(found.value) and found.error < 0.5 * found.value):
            break
        at.append(t)
        each.append(found)
        if answer.exact is not None:
            known = answer.exact.correlator[coordinate] - answer.exact.mean[coordinate] ** 2
            exact.append(effective_mass(known, t, 1, eps))
    return _series(answer, at, each, np.array(exact) if exact else None)


def _series(answer: PathSum, at: Iterable[int], each: list[Average], exact: Array | None) -> Series:
    times = answer.lattice.time.spacing * np.array(list(at), float)
    return Series(times, np.array([a.value for a in each]), np.array([a.error for a in each]), exact)


def panels(answer: PathSum, seed: int = 0) -> list[Panel]:
    """Sample paths, correlator, and (periodic) effective mass of the first coordinate."""
    name = answer.v.names[0]
    paths = _some_paths(answer, seed)
    times = answer.lattice.time.spacing * np.arange(answer.lattice.time.sites)
    lines = [Curve(times, p, colour=COLOURS[i % len(COLOURS)]) for i, p in enumerate(paths)]
    found = [Panel(f"{len(paths)} sample paths", "t", name, lines)]
    series = [("correlator", f"<{name}(0) {name}(t)>", correlator_series(answer))]
    if answer.lattice.time.ends == "periodic":
        series.append(("effective mass", "gap", mass_series(answer)))
    for title, label, s in series:
        curves = [] if s.exact is None else [Curve(s.times, s.exact, label="exact", colour=COLOURS[1])]
        curves.append(Curve(s.times, s.value, s.error, label="estimate", colour=COLOURS[0], marks=True))
        found.append(Panel(title, "t", label, curves))
    return found


def cost_panel(costs: Sequence[Cost]) -> Panel:
    """The price of gauge freedom: log10 of gradients per independent sample over the width of the free scales."""
    widths, spent = np.array([c.sigma for c in costs]), np.array([c.evaluations for c in costs])
    curves = [Curve(widths, np.log10(spent)), Curve(widths, np.log10(spent), marks=True)]
    return Panel("the cost of not fixing the gauge", "sigma of the free scales", "log10 gradients per sample", curves)


def _some_paths(answer: PathSum, seed: int) -> Array:
    """Paths distributed as exp(-S), (PATHS, sites): weighted ones are drawn by weight."""
    rng = np.random.default_rng(seed)
    if isinstance(answer.sample, WeightedSample):
        return resample(answer.sample, PATHS, rng)[:, 0]
    flat = answer.sample.paths.reshape(-1, *answer.sample.paths.shape[2:])
    return flat[rng.choice(len(flat), PATHS, replace=False)][:, 0]


def check_file(file: Path, force: bool = False) -> None:
    """InputError for a name that `write_figure` would refuse: before the work, not after it."""
    if file.suffix not in (".svg", ".html"):
        raise InputError(f"figure {file}: write a .svg or a .html file")
    if file.suffix == ".html" and importlib.util.find_spec("plotly") is None:
        raise InputError(f"figure {file} needs plotly: pip install 'regauge[plot]', or write a .svg file")
    if file.exists() and not force:
        raise InputError(f"figure {file} exists: choose another name, or replace it with --force")
    if not file.parent.is_dir():
        raise InputError(f"figure {file}: the folder {file.parent} does not exist: make it first")


def free_name(folder: Path, stem: str = "paths") -> Path:
    """The first of paths.svg, paths-2.svg, ... that does not exist in `folder`."""
    names = (folder / f"{stem}{'' if i == 1 else f'-{i}'}.svg" for i in itertools.count(1))
    return next(file for file in names if not file.exists())


def write_figure(answer: PathSum, file: Path, force: bool = False) -> None:
    """`file` ends in .svg (no dependency) or .html (interactive, through plotly). A file that stands is replaced
    only by `force`."""
    check_file(file, force)
    title = f"V = {answer.v.text}, {answer.sample.sampler}"
    content = svg(panels(answer), title) if file.suffix == ".svg" else _page(panels(answer), title)
    beside = file.with_name(file.name + ".part")
    beside.write_text(content, encoding="utf-8")
    beside.replace(file)


def _page(drawn: list[Panel], title: str) -> str:
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    page = make_subplots(1, len(drawn), subplot_titles=[p.title for p in drawn])
    for column, panel in enumerate(drawn, 1):
        for curve in panel.curves:
            error = None if curve.error is None else {"array": curve.error, "thickness": 1}
            trace = go.Scatter(
                x=curve.x,
                y=curve.y,
                error_y=error,
                mode="markers" if curve.marks else "lines",
                name=curve.label,
                showlegend=bool(curve.label) and column == 2,
                line={"color": curve.colour},
                marker={"color": curve.colour, "size": 5},
            )
            page.add_trace(trace, 1, column)
        page.update_xaxes(title_text=panel.across, row=1, col=column)
        page.update_yaxes(title_text=panel.up, row=1, col=column)
    page.update_layout(title_text=title, template="plotly_white")
    return page.to_html(include_plotlyjs=True, full_html=True)
