"""What becomes of one network: is its inferred group sound, and is it the whole group?"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

import regauge
from regauge.check.generic import randomise
from regauge.check.jacobian import calls_relu, null_space
from regauge.errors import InputError, RegaugeError
from tests.fuzz.networks import Network
from tests.fuzz.run import Net, example

UNSOUND = 1e-7  # a symmetry leaves rounding, 1e-16 to 1e-10; what is none changes more than this
SMALL = 400  # parameters of a network whose Jacobian is factorised


@dataclass(frozen=True)
class Verdict:
    """kind: sound, UNSOUND, OVERCOUNTED (more dimensions than the function has), refused, skipped (no finite function of
    parameters), CRASH. dim: inferred. nullity: measured; None where it was not."""

    kind: str
    error: float = 0.0
    dim: int = 0
    nullity: int | None = None
    note: str = ""

    @property
    def bad(self) -> bool:
        return self.kind.isupper()

    @property
    def gap(self) -> int:
        return 0 if self.nullity is None else self.nullity - self.dim

    def record(self) -> dict[str, object]:
        return asdict(self)


def verdict(network: Network, *, tight: bool = True, seeds: int = 2) -> Verdict:
    return judged(Net(network), example(network), tight=tight, seeds=seeds)


def judged(model: nn.Module, x: Tensor, *, tight: bool = True, seeds: int = 2) -> Verdict:
    """The verdict on a module that returns a tuple of tensors, at generic parameters."""
    model = model.eval()
    randomise(model, torch.Generator().manual_seed(1))
    try:
        gauge = inferred(model, x)
        dim = gauge.dim
    except RegaugeError as error:
        return Verdict("refused", note=f"{type(error).__name__}: {str(error)[:300]}")
    except Exception as error:
        return Verdict("CRASH", note=f"{type(error).__name__}: {str(error)[:300]}")
    try:
        error = change(model, x, gauge, seeds)
    except ArithmeticError as overflow:
        return Verdict("skipped", dim=dim, note=str(overflow))
    except Exception as crash:
        return Verdict("CRASH", dim=dim, note=f"{type(crash).__name__}: {str(crash)[:300]}")
    if not error <= UNSOUND:
        return Verdict("UNSOUND", error, dim)
    nullity = None
    if tight and sum(p.numel() for p in model.parameters()) <= SMALL:
        try:
            outside = sum(p.numel() for n, p in model.named_parameters() if n not in gauge.parameters)
            nullity = measured(model, x, dim + outside)
            nullity = None if nullity is None else nullity - outside
        except (InputError, RuntimeError) as reason:  # an operator without a derivative
            return Verdict("sound", error, dim, note=str(reason)[:100])
        if nullity is not None and nullity < dim:
            return Verdict("OVERCOUNTED", error, dim, nullity)
    return Verdict("sound", error, dim, nullity)


def inferred(model: nn.Module, x: Tensor) -> regauge.Gauge:
    """The gauge by way of an exported program: regauge's own tracing normalises in-place operations away, which takes
    longer than all the rest, so only networks that have such operations go that way."""
    program = torch.export.export(model, (x,), strict=False)
    targets = [n.target for n in program.graph.nodes if n.op == "call_function"]
    plain = all(isinstance(t, torch._ops.OpOverload) and not t._schema.is_mutable for t in targets)
    return regauge.infer(program if plain else model, (x,))


@torch.no_grad()
def change(model: nn.Module, x: Tensor, gauge: regauge.Gauge, seeds: int) -> float:
    """The largest change of the outputs under sampled elements, relative to their size, in float64."""
    twin = deepcopy(model).double().eval()
    state = {n: t.double() for n, t in model.state_dict().items()}
    twin.load_state_dict(state)
    x = x.double() if x.is_floating_point() else x
    before = twin(x)
    if not all(bool(torch.isfinite(y).all()) and float(y.abs().max()) < 1e12 for y in before):
        raise ArithmeticError("the function is not finite")
    worst = 0.0
    for seed in range(seeds):
        twin.load_state_dict(gauge.sample(seed).apply(state))
        for y, z in zip(before, twin(x), strict=True):
            here = float((z - y).abs().max() / y.abs().max().clamp_min(1e-6))
            worst = max(worst, here) if here == here else float("inf")
    return worst


def measured(model: nn.Module, x: Tensor, dim: int) -> int | None:
    """The nullity of the Jacobian, the least over a few points; None where no clear rank shows."""
    best = None
    leaks = calls_relu(model, (x,))
    for seed in range(2):
        space = null_space(model, (x,), seed=seed, leaks=leaks)
        if space.clear:
            best = space.nullity if best is None else min(best, space.nullity)
        if best == dim:
            break
    return best
