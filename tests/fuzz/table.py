"""One random network for an operator of the rule table: every rule is reached, whatever the drawn networks do.

The operator is called as one of its samples calls it. Each floating argument comes from a linear map of the input, with
something drawn in between, or is a parameter or a constant; what the operator returns is read by linear maps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import regauge.rules  # noqa: F401  (fills the table)
from regauge.rules.registry import RULES
from regauge.testing import draw_sample
from tests.fuzz.networks import Choose
from tests.fuzz.run import FUNCTIONS

INPUTS = 4
BETWEEN = ("nothing", "nothing", "nothing", "tanh", "relu", "square", "gain", "centre", "rms", "bias")
PLACES = ("data", "data", "data", "data", "parameter", "constant")


class Around(nn.Module):
    """x of shape (rows, INPUTS) -> linear maps -> the operator -> linear maps."""

    def __init__(self, name: str, sample: int, choose: Choose) -> None:
        super().__init__()
        self.rule = RULES[name]
        self.sample = draw_sample(self.rule, sample, 0)
        self.text = [f"{name}, sample {sample}"]
        self.steps: dict[str, tuple[str, ...]] = {}
        tensors = list(self.sample.state)
        data = choose(tensors)  # at least this one
        for key in tensors:
            x = self.sample.state[key]
            place = "data" if key == data else choose(PLACES)
            if key in self.sample.statistics:
                self.register_buffer(key, x.abs() + 0.5)
                place = "statistic"
            elif place == "data":
                self.steps[key] = (choose(BETWEEN), choose(("bias", "plain")))
                self._map(key, x, self.steps[key])
            elif place == "parameter":
                self.register_parameter(key, nn.Parameter(x.clone()))
            else:
                self.register_buffer(key, x.clone(), persistent=False)
            self.text.append(f"{key}{list(x.shape)}: {place} {' '.join(self.steps.get(key, ()))}")
        self.rows = choose((7, 11))
        self.reads: list[str] = []
        for k, y in enumerate(self.sample.call(self.sample.state)):
            how = choose(("map", "map", "bare", "tanh"))
            self.reads.append(how)
            if how != "bare" and y.ndim and y.shape[-1] <= 12:
                self.register_parameter(f"out{k}", nn.Parameter(torch.randn(y.shape[-1], 3)))
        self.text.append(f"returns {', '.join(self.reads)}")

    def _map(self, key: str, x: Tensor, how: tuple[str, ...]) -> None:
        """To a last axis of its size from all that the input has for each of its other places."""
        lead, n = x.shape[:-1].numel(), x.shape[-1] if x.ndim else 1
        self.register_buffer(f"{key}_spread", torch.randn(lead, 11), persistent=False)
        self.register_parameter(f"{key}_w", nn.Parameter(torch.randn(INPUTS, n)))
        if how[1] == "bias":
            self.register_parameter(f"{key}_b", nn.Parameter(torch.randn(n)))
        if how[0] in ("gain", "bias"):
            self.register_parameter(f"{key}_g", nn.Parameter(torch.randn(n)))

    def _data(self, key: str, x: Tensor) -> Tensor:
        shape, between = self.sample.state[key].shape, self.steps[key][0]
        rows = torch.tanh(getattr(self, f"{key}_spread")[:, : self.rows] @ x)
        y = rows @ getattr(self, f"{key}_w")
        if self.steps[key][1] == "bias":
            y = y + getattr(self, f"{key}_b")
        match between:
            case "gain":
                y = y * getattr(self, f"{key}_g")
            case "bias":
                y = torch.tanh(y) + getattr(self, f"{key}_g")
            case "centre":
                y = y - y.mean(-1, keepdim=True)
            case "rms":
                y = y * torch.rsqrt((y * y).mean(-1, keepdim=True) + 1e-3)
            case name if name in FUNCTIONS:
                y = FUNCTIONS[name](y)
        return y.reshape(shape)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        made = {k: self._data(k, x) if k in self.steps else getattr(self, k) for k in self.sample.state}
        given = iter(made.items())

        def put(t: Any) -> Any:
            if not isinstance(t, Tensor):
                return t
            if not (t.is_floating_point() or t.is_complex()):
                return t
            _, y = next(given)
            return torch.view_as_complex(y.contiguous()) if t.is_complex() else y

        args, kwargs = torch.utils._pytree.tree_map(put, (self.sample.args, self.sample.kwargs))
        found = self.sample.target(*args, **kwargs)
        out = []
        for k, y in enumerate(_floats(found)):
            y = torch.view_as_real(y) if y.is_complex() else y.to(x.dtype)
            y = torch.tanh(y) if self.reads[k] == "tanh" else y
            out.append(y @ getattr(self, f"out{k}") if hasattr(self, f"out{k}") else y)
        return tuple(out)

    def __str__(self) -> str:
        return "; ".join(self.text)

    def example(self) -> Tensor:
        return torch.randn(self.rows, INPUTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _floats(found: Any) -> list[Tensor]:
    leaves = found if isinstance(found, tuple | list) else [found]
    return [y for y in leaves if isinstance(y, Tensor) and y.numel()]


def around(name: str, choose: Choose) -> Around:
    """A random network around one operator. Raises what the operator raises where its samples need other types."""
    count = sum(1 for _ in RULES[name].samples(lambda *shape: torch.zeros(shape, dtype=torch.float64)))
    net = Around(name, choose(range(count)), choose).double()
    if not all(bool(torch.isfinite(y).all()) for y in net(net.example())):  # a logarithm, an arc sine
        net.steps = {key: ("sigmoid", bias) for key, (_, bias) in net.steps.items()}
        net.text.append("all data through a sigmoid")
    return net
