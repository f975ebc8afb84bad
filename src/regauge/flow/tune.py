"""Fewer function evaluations: find the gauge in which a given solver with a given number of steps is most accurate.

All gauges share one flow; a solver with few steps does not, and its error is what is minimised: the mean square
distance from the exact end points, on noise that the choice never sees. The original gauge and the closed-form
schedules are candidates, so the answer is never worse than they are on the held-out noise.

Few samples, those near a watershed between two modes, carry most of the error, so a per-step gauge with its many
parameters needs much noise to be tuned on. Every few iterations the samples with large errors are picked anew out of
all of it (`hard_samples`); only these are differentiated.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from regauge.errors import InputError
from regauge.flow.comoving import ComovingSampler
from regauge.flow.fields import Field
from regauge.flow.hard_samples import hard_samples
from regauge.flow.least_squares import Pair, fit
from regauge.flow.samplers import ClosedSampler, FlatField, TunedModel
from regauge.flow.solvers import integrate, method_named

Progress = Callable[[str, int, int], None]
Losses = tuple[float, ...]
# random numbers added to the local gauges at another start, times the square root of the number of evaluations
SCATTER = 0.2
# evaluations up to which a per-step gauge has so few numbers that it gets more of them, and more starts
FEW = 4


@dataclass(frozen=True)
class TuneOptions:
    """Iterations of Levenberg-Marquardt for the smooth gauges and for the per-step gauge; batch (memory); seed.

    fitted: about how many samples an iteration differentiates. refresh: iterations until they are picked anew.
    starts: of the per-step gauge: in the best smooth gauge, in none, then at the best so far with random numbers added;
    the best after `refresh` iterations each goes on. None: 16 with up to 4 evaluations, where minima are many and
    iterations cheap, else 2.
    directions: how many random combinations of a state's numbers an iteration differentiates; all of them if there are
    no more. channels: one scale per principal axis of the end points (None: if the state has between 2 and 256
    numbers). memory: how many of the latest velocities a per-step gauge may weigh anew. invariants: whether its weights
    may depend on |z|^2 and |V|^2 (None: with up to 4 evaluations, where they would be few otherwise).
    comoving: search per-step gauges at all. tolerance: of the reference, relative to the end points' rms.
    """

    smooth_iterations: int = 10
    step_iterations: int = 60
    fitted: int = 1024
    refresh: int = 10
    starts: int | None = None
    batch: int = 512
    directions: int = 4
    degree: int = 8
    channels: bool | None = None
    memory: int = 64
    invariants: bool | None = None
    comoving: bool = True
    tolerance: float = 1e-5
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """rmse: root mean square distance from the exact end point on held-out noise, with `evaluations` per sample."""

    name: str
    rmse: float
    evaluations: int
    parameters: int


@dataclass(frozen=True)
class Tuned:
    """The chosen model and the whole table. `reference_error` bounds what the table can resolve."""

    model: TunedModel
    candidates: tuple[Candidate, ...]
    chosen: str
    reference_error: float
    history: dict[str, Losses] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        identity = self.candidates[0].rmse
        lines = [f"{'gauge':<10} {'rmse':>10} {'gain':>6} {'parameters':>11}"]
        for c in self.candidates:
            mark = "  <- chosen" if c.name == self.chosen else ""
            lines.append(f"{c.name:<10} {c.rmse:10.3e} {identity / c.rmse:6.2f} {c.parameters:11d}{mark}")
        return "\n".join(lines)


def reference(flat: Field, noise: Tensor, tolerance: float, first: int = 16, last: int = 512) -> tuple[Tensor, float]:
    """(end points, error estimate): RK4 with the number of steps doubled until two answers agree to tolerance x rms."""
    with torch.no_grad():
        steps, before = first, integrate(flat, noise, "rk4", first)
        while True:
            steps *= 2
            after = integrate(flat, noise, "rk4", steps)
            gap = float((after - before).square().mean().sqrt())
            if not gap == gap:
                raise InputError(
                    "tune: the field returned NaN on the way to the reference; check its dtype and time range"
                )
            # Richardson: the finer answer's own error is a fifteenth of the gap
            if gap / 15 <= tolerance * float(after.square().mean().sqrt()):
                return after, gap / 15
            if steps >= last:
                raise InputError(
                    f"tune: RK4 with {steps} steps has not settled (error about {gap / 15:.1e}); the field is stiff or "
                    "not smooth: raise tolerance, or pass reference end points with targets="
                )
            before = after


def tune(
    velocity: Field,
    noise: Tensor,
    solver: str = "midpoint",
    steps: int = 8,
    *,
    start: float = 0.0,
    end: float = 1.0,
    targets: Tensor | None = None,
    options: TuneOptions | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Tune `velocity` (t, x) -> dx/dt, integrated from `start` to `end`, for `steps` steps of `solver`.

    noise (n, ...): samples of the law that the model starts from; the first three quarters train, the last one decides.
    n of a few thousand will do for few evaluations, more evaluations (16) are worth twice as many. targets: exact end
    points, computed by RK4 if not given. The model's parameters are not touched.
    """
    options = options or TuneOptions()
    stages = method_named(solver).stages
    if len(noise) < 16:
        raise InputError(f"tune: {len(noise)} noise samples are too few to decide on; pass at least 16, better 2000")
    _require_field(velocity, noise[:2], start)
    shape = tuple(noise.shape[1:])
    flat = FlatField(velocity, shape, start, end)
    x0 = noise.reshape(len(noise), -1)
    x1, error = reference(flat, x0, options.tolerance) if targets is None else (targets.reshape(len(noise), -1), 0.0)
    first, last = 5 * len(noise) // 8, 3 * len(noise) // 4
    train, watch, held = ((x0[a:b], x1[a:b]) for a, b in ((0, first), (first, last), (last, len(noise))))
    rng = torch.Generator().manual_seed(options.seed)

    def search(sampler: ComovingSampler, names: list[str], iterations: int, report: Callable[[int], None]) -> Losses:
        found = fit(
            sampler,
            names,
            flat,
            train,
            watch,
            iterations,
            draw=lambda: hard_samples(_errors(sampler, flat, train), options.fitted, rng),
            refresh=options.refresh,
            batch=options.batch,
            directions=options.directions,
            rng=rng,
            report=report,
        )
        return found.history

    samplers: dict[str, ClosedSampler | ComovingSampler] = {
        name: ClosedSampler(name, solver, steps) for name in ("identity", "cosine", "vp")
    }
    history: dict[str, Losses] = {}
    plan = _plan(x1[:last], options)
    few = steps * stages <= FEW
    starts = options.starts or (16 if few else 2)
    opening = min(options.refresh, options.step_iterations)
    smooth_total = len(plan) * options.smooth_iterations
    total = smooth_total + (starts * opening + options.step_iterations - opening if options.comoving else 0)

    def report(label: str, before: int, here: int) -> None:
        if progress is not None:
            progress(label, before + here, total)

    def blank(frame: Tensor | None, bend: bool) -> ComovingSampler:
        unit = float(x1[:last].square().sum(-1).mean())
        return ComovingSampler(solver, steps, frame, options.degree, options.memory, bend, unit).to(x0)

    with _frozen(velocity):
        smooth: dict[str, ComovingSampler] = {}
        for k, (name, frame) in enumerate(plan):
            sampler = blank(frame, bend=False)
            done = partial(report, name, k * options.smooth_iterations)
            history[name] = search(sampler, sampler.smooth_parameters(), options.smooth_iterations, done)
            smooth[name] = sampler
        samplers |= smooth
        if options.comoving:
            best = min(smooth, key=lambda name: _rmse(smooth[name], flat, watch))
            found: list[tuple[float, Losses, ComovingSampler]] = []
            for k in range(starts):
                sampler = blank(plan[-1][1], few if options.invariants is None else options.invariants)
                if k == 0:
                    sampler.take_smooth(smooth[best])
                if k > 1:
                    sampler = copy.deepcopy(found[0][2])
                    sampler.scatter(SCATTER, rng)
                done = partial(report, "comoving", smooth_total + k * opening)
                losses = search(sampler, sampler.local_parameters(), opening, done)
                found.append((_finite(_rmse(sampler, flat, watch)), losses, sampler))
                found = [min(found, key=lambda one: one[0])]
            _, losses, sampler = found[0]
            done = partial(report, "comoving", smooth_total + starts * opening)
            rest = search(sampler, sampler.local_parameters(), options.step_iterations - opening, done)
            history["comoving"] = losses + rest
            samplers["comoving"] = sampler
        table = tuple(
            Candidate(name, _rmse(s, flat, held), steps * stages, _size(s, name)) for name, s in samplers.items()
        )
    chosen = min(table, key=_key).name
    stateless = min((c for c in table if c.name != "comoving"), key=_key).name
    gauge = samplers[stateless].gauge()
    model = TunedModel(velocity, samplers[chosen], gauge, stateless, shape, start, end)
    return Tuned(model, table, chosen, error, history)


def _require_field(velocity: Field, states: Tensor, start: float) -> None:
    """InputError unless the field maps two states to two velocities of their shape."""
    try:
        with torch.no_grad():
            found = velocity(torch.tensor(start, dtype=states.dtype, device=states.device), states)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"tune: the field fails on states of shape {tuple(states.shape)} at t = {start:g} ({error}); check the shape "
            "of the noise, and whether the model takes (t, x) or (x, t)"
        ) from error
    if not isinstance(found, Tensor) or found.shape != states.shape:
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"tune: the field returns {what} for states of shape {tuple(states.shape)}; it must return their velocities"
        )


def _key(candidate: Candidate) -> float:
    return _finite(candidate.rmse)


def _finite(value: float) -> float:
    return value if value == value else float("inf")


def _plan(ends: Tensor, options: TuneOptions) -> list[tuple[str, Tensor | None]]:
    """The smooth families: one scale, and one per principal axis where that is not the same thing."""
    dim = ends.shape[1]
    wanted = 1 < dim <= 256 if options.channels is None else options.channels
    plan: list[tuple[str, Tensor | None]] = [("smooth", None)]
    if wanted:
        frame = torch.linalg.eigh(torch.cov(ends.double().T)).eigenvectors.to(ends.dtype)
        plan.append(("channels", frame))
    return plan


def _size(sampler: nn.Module, name: str) -> int:
    if isinstance(sampler, ComovingSampler):
        return sampler.degrees_of_freedom(smooth_only=name != "comoving")
    return 0


def _errors(sampler: nn.Module, flat: Field, pair: Pair) -> Tensor:
    with torch.no_grad():
        return (sampler(flat, pair[0]) - pair[1]).norm(dim=-1)


def _rmse(sampler: nn.Module, flat: Field, pair: Pair) -> float:
    return float(_errors(sampler, flat, pair).square().mean().sqrt())


class _frozen:
    """The model's parameters ask for no gradient inside, and are as they were after."""

    def __init__(self, model: Field) -> None:
        self.parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
        self.before = [p.requires_grad for p in self.parameters]

    def __enter__(self) -> None:
        for p in self.parameters:
            p.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for p, wanted in zip(self.parameters, self.before, strict=True):
            p.requires_grad_(wanted)
