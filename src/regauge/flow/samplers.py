"""What tuning returns: samplers, the wrapped model, and the small file that holds the gauge."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from regauge.errors import InputError
from regauge.flow.affine import BernsteinScale
from regauge.flow.clocks import BernsteinClock
from regauge.flow.comoving import ComovingSampler
from regauge.flow.fields import Field, FieldToXT
from regauge.flow.gauge import Gauge
from regauge.flow.schedules import SCHEDULES, from_condot
from regauge.flow.solvers import TORCHDIFFEQ_NAMES, integrate, method_named, uniform
from regauge.flow.transport import TransportedField

SCHEMA = 3


class FlatField:
    """A field on flat states (batch, d) and time [0, 1], from one on (batch, *shape) and [start, end]."""

    def __init__(self, field: Field, shape: tuple[int, ...], start: float = 0.0, end: float = 1.0) -> None:
        self.field, self.shape, self.start, self.span = field, shape, start, end - start

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        v = self.field(self.start + self.span * t, x.reshape(len(x), *self.shape))
        return self.span * v.reshape(x.shape)


class ClosedSampler(nn.Module):
    """A fixed number of steps in a closed-form gauge: "identity", or a schedule name (seen from CondOT, stretched)."""

    def __init__(self, name: str, method: str, steps: int) -> None:
        super().__init__()
        if name != "identity" and name not in SCHEDULES:
            raise InputError(f"closed-form gauge {name!r} is unknown; choose identity, {', '.join(SCHEDULES)}")
        self.name, self.method, self.steps = name, method_named(method).name, steps

    @property
    def evaluations(self) -> int:
        return self.steps * method_named(self.method).stages

    def gauge(self) -> Gauge:
        return Gauge() if self.name == "identity" else from_condot(SCHEDULES[self.name], stretch=True)

    def forward(self, field: Field, x: Tensor) -> Tensor:
        gauge = self.gauge()
        other = field if self.name == "identity" else TransportedField(field, gauge)
        return gauge.decode(integrate(other, gauge.encode(x), self.method, self.steps))


class TunedModel(nn.Module):
    """A drop-in for the original model, with the gauge inside.

    sample(x0)        x(end) with the tuned solver and number of steps: the most accurate way
    forward(t, x)     the field in the best *stateless* gauge (identity, schedule or smooth): for torchdiffeq's
    fixed-step
                      solvers from `start` to `end`, with the tuned number of steps; the ends need no dressing if
                      `needs_dressing` is False, else use encode and decode
    as_xt()           the same with flow_matching's calling convention, model(x, t)
    """

    def __init__(
        self,
        field: Field,
        sampler: ClosedSampler | ComovingSampler,
        gauge: Gauge,
        gauge_name: str,
        shape: tuple[int, ...],
        start: float = 0.0,
        end: float = 1.0,
    ) -> None:
        super().__init__()
        self.field, self.gauge, self.gauge_name = field, gauge, gauge_name
        self.sampler = sampler
        self.shape, self.start, self.end = tuple(shape), start, end

    @property
    def evaluations(self) -> int:
        """Function evaluations of one sample."""
        return int(self.sampler.evaluations)

    def sample(self, x: Tensor) -> Tensor:
        """x(end) from x(start), (batch, *shape)."""
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"tuned model: states have shape {tuple(x.shape[1:])}, but it was tuned on {self.shape}")
        flat = FlatField(self.field, self.shape, self.start, self.end)
        return self.sampler(flat, x.reshape(len(x), -1)).reshape(x.shape)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        span = self.end - self.start
        flat = FlatField(self.field, self.shape, self.start, self.end)
        moved = TransportedField(flat, self.gauge)((t - self.start) / span, x.reshape(len(x), -1))
        return moved.reshape(x.shape) / span

    @property
    def needs_dressing(self) -> bool:
        """Whether the stateless gauge is not the identity at the ends (up to 1e-6 on a random state)."""
        size = int(torch.tensor(self.shape).prod()) if self.shape else 1
        probe = torch.randn(8, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return self.gauge.ends(probe).worst > 1e-6

    def encode(self, x: Tensor) -> Tensor:
        return self.gauge.encode(x.reshape(len(x), -1)).reshape(x.shape)

    def decode(self, y: Tensor) -> Tensor:
        return self.gauge.decode(y.reshape(len(y), -1)).reshape(y.shape)

    def time_grid(self) -> Tensor:
        """The knots for odeint(model, x0, grid, method=...): one step between two of them."""
        return torch.tensor(uniform(self.start, self.end, int(self.sampler.steps)))

    @property
    def torchdiffeq_method(self) -> str:
        """The name of the tuned method in torchdiffeq; InputError for the classical rk4, which it does not have."""
        name = TORCHDIFFEQ_NAMES.get(self.sampler.method)
        if name is None:
            raise InputError(f"torchdiffeq has no {self.sampler.method!r} (its rk4 is the 3/8 rule); tune for rk4_38")
        return name

    def as_xt(self) -> FieldToXT:
        return FieldToXT(self)

    def save(self, path: str | Path, note: dict[str, object] | None = None, force: bool = False) -> None:
        """Write the gauge, not the model: a safetensors file of a few kilobytes; over an old one only by force."""
        path = Path(path)
        if path.exists() and not force:
            raise InputError(f"{path}: exists already; choose another name or pass force=True (--force)")
        specification, tensors = self._specification()
        text = json.dumps({"schema": SCHEMA, **specification, "note": note or {}})
        beside = path.with_name(path.name + ".part")
        tensors = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
        save_file(tensors or {"empty": torch.zeros(1)}, beside, metadata={"regauge.flow": text})
        os.replace(beside, path)

    def _specification(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        tensors: dict[str, Tensor] = {}
        common: dict[str, object] = {
            "shape": list(self.shape),
            "start": self.start,
            "end": self.end,
            "gauge": self.gauge_name,
            "method": self.sampler.method,
            "steps": self.sampler.steps,
        }
        if isinstance(self.sampler, ComovingSampler):
            common["sampler"] = "comoving"
            common["options"] = {k: getattr(self.sampler, k) for k in ("degree", "memory", "invariants", "unit")}
            tensors |= {f"sampler.{k}": v for k, v in self.sampler.state_dict().items()}
        else:
            common["sampler"] = self.sampler.name
        if isinstance(self.gauge.space, BernsteinScale):
            tensors |= {f"gauge.{k}": v for k, v in self.gauge.state_dict().items()}
        return common, tensors


def load_tuned(path: str | Path, field: Field) -> TunedModel:
    """The tuned model from a gauge file and the original field."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("regauge.flow")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be read as a safetensors file ({error}); pass a file written by flow tune"
        ) from error
    if text is None:
        raise InputError(f"{path}: holds no flow gauge; pass a file written by `regauge flow tune`")
    spec = json.loads(text)
    if spec["schema"] != SCHEMA:
        raise InputError(f"{path}: schema {spec['schema']} is not {SCHEMA}; tune again with this version")
    part = _part(tensors)
    sampler: ClosedSampler | ComovingSampler
    if spec["sampler"] == "comoving":
        state = part("sampler.")
        sampler = ComovingSampler(spec["method"], spec["steps"], state.get("frame"), **spec["options"])
        sampler.load_state_dict(state)
    else:
        sampler = ClosedSampler(spec["sampler"], spec["method"], spec["steps"])
    if spec["gauge"] in ("identity", *SCHEDULES):
        gauge = ClosedSampler(spec["gauge"], spec["method"], spec["steps"]).gauge()
    else:
        state = part("gauge.")
        coefficients = state["space.log_scale"]
        space = BernsteinScale(len(coefficients) - 1, coefficients.shape[1], state.get("space.frame"))
        gauge = Gauge(space, BernsteinClock(len(state["clock.logits"])))
        gauge.load_state_dict(state)
    return TunedModel(field, sampler, gauge, spec["gauge"], tuple(spec["shape"]), spec["start"], spec["end"])


def _part(tensors: dict[str, Tensor]) -> Callable[[str], dict[str, Tensor]]:
    return lambda prefix: {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
