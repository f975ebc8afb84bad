"""A model as a trajectory: the values that everything flows through are its sites, what lies between two its segments.

Read off the core graph, so it works for whatever the compiler traces. A segment is

    a line   x -> W x + b along the last axis, W a parameter
    a kick   a map without parameters
    a step   anything else that keeps the shape of the state, a residual block for example: one Euler step of unit
             length of the field segment(x) - x
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regauge.errors import InputError
from regauge.graph.canonical import canonical
from regauge.graph.capture import capture
from regauge.graph.evaluate import run
from regauge.graph.ir import Add, Chart, Einsum, Free, Graph, Param, Value, evaluate
from regauge.rules.lower import lower

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Line:
    """W (out, in) and b (out,); the parameter that holds W (as its transpose: flip), and the one that holds b, if any."""

    weight: Tensor
    bias: Tensor
    weight_from: Value
    flip: bool
    bias_from: Value | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)

    def stored(self, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Another W and b, as the model's parameters hold them; InputError if b is not zero and has no parameter."""
        weight_name, weight_chart = _parameter(self.weight_from)
        state = {weight_name: weight_chart.inverse(weight.T if self.flip else weight).contiguous()}
        if self.bias_from is not None:
            bias_name, bias_chart = _parameter(self.bias_from)
            state[bias_name] = bias_chart.inverse(bias)
        elif bool(bias.any()):
            raise InputError(f"lift: {weight_name} has no bias, so a translation cannot be stored; give the layer one")
        return state


def _parameter(value: Value) -> tuple[str, Chart]:
    assert isinstance(value.op, Param)
    return value.op.name, value.op.chart


@dataclass(frozen=True)
class Kick:
    """A map without parameters; `name` is its operator."""

    map: Map
    name: str

    def __call__(self, x: Tensor) -> Tensor:
        return self.map(x)


@dataclass(frozen=True)
class Step:
    """A map of the state to a state of the same shape; `place` is where it ends in the model's source."""

    map: Map
    place: str

    def __call__(self, x: Tensor) -> Tensor:
        return self.map(x)


Segment = Line | Kick | Step


def read(model: nn.Module, example: Tensor) -> list[Segment]:
    """The segments of a model with one input and one output; states are (batch, ..., width).

    Raises InputError where a part of the model is neither a line, nor a kick, nor keeps the shape of the state.
    """
    captured = capture(model, (example,))
    graph = canonical(lower(captured).graph)
    cuts = _cuts(graph)
    names = {v.op.name for v in graph.values if isinstance(v.op, Param)}
    state = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    tensors = {name: _tensor(state, name, captured.aliases).detach() for name in names}
    if not tensors:
        raise InputError("lift: the model has no parameters, so there is nothing to lift")
    values = run(graph, tensors)
    segments: list[Segment] = []
    for start, end in zip(cuts, cuts[1:], strict=False):
        _append(segments, _segment(graph, values, start, end))
    return segments


def _tensor(state: Mapping[str, Tensor], name: str, aliases: Mapping[str, Sequence[str]]) -> Tensor:
    return next(state[n] for n in (name, *aliases.get(name, ())) if n in state)


def _cuts(graph: Graph) -> list[Value]:
    """The values that every path from the input to the output meets, in order."""
    if len(graph.outputs) != 1:
        raise InputError(f"lift: the model returns {len(graph.outputs)} tensors; wrap it so that it returns one")
    above: set[int] = set()
    todo = [graph.outputs[0]]
    while todo:
        v = todo.pop()
        if v.data and v.id not in above:
            above.add(v.id)
            todo.extend(v.args)
    path = [v for v in graph.values if v.id in above]
    leaves = [v for v in path if isinstance(v.op, Free)]
    if len(leaves) != 1:
        raise InputError(f"lift: {len(leaves)} values depend on inputs alone; the model must be a map of one state")
    place = {v.id: i for i, v in enumerate(path)}
    reach, cuts = 0, []
    for i, v in enumerate(path):
        if reach <= i:
            cuts.append(v)
        reach = max([reach, *(place[u.id] for u in path[i + 1 :] if any(a.id == v.id for a in u.args))])
    return cuts


def _segment(graph: Graph, values: Mapping[int, Tensor], start: Value, end: Value) -> Segment:
    inner = [v for v in graph.values if v.data and start.id < v.id <= end.id]
    line = _line(inner, values, start)
    if line is not None:
        return line
    fixed = {a.id: values[a.id] for v in inner for a in v.args if not a.data}
    whole = _map(inner, fixed, start)
    if not any(a.learned for v in inner for a in v.args if not a.data):
        return Kick(whole, end.source.operator)
    if start.shape != end.shape:
        raise InputError(
            f"lift: {end.source} turns states of shape {start.shape} into {end.shape} by neither a linear map nor a "
            "map without parameters; lift takes stacks of linear layers, activations and residual blocks"
        )
    return Step(whole, str(end.source))


def _line(inner: Sequence[Value], values: Mapping[int, Tensor], start: Value) -> Line | None:
    """x -> W x with W a parameter, or x -> x + b, along the last axis."""
    if len(inner) != 1 or len(inner[0].args) != 2:
        return None
    (end,) = inner
    data = [i for i, a in enumerate(end.args) if a.id == start.id]
    if len(data) != 1 or not isinstance(end.op, Einsum | Add):
        return None
    k = data[0]
    other, mine, theirs = end.args[1 - k], end.op.ins[k], end.op.ins[1 - k]
    if not isinstance(other.op, Param) or not mine:
        return None
    tensor = values[other.id]
    if isinstance(end.op, Add):
        plain = end.op.coefs == (1.0, 1.0) and theirs == mine[-1:] and end.op.out == mine
        one = torch.eye(len(tensor), dtype=tensor.dtype) if plain else tensor
        return Line(one, tensor, other, False, other) if plain else None
    if end.op.out[:-1] != mine[:-1] or set(theirs) != {mine[-1], end.op.out[-1]} or len(theirs) != 2:
        return None
    flip = theirs[0] == mine[-1]
    weight = tensor.T if flip else tensor
    return Line(weight, weight.new_zeros(len(weight)), other, flip)


def _append(segments: list[Segment], new: Segment) -> None:
    """A bias joins the linear map before it; kicks in a row are one kick."""
    last = segments[-1] if segments else None
    if isinstance(new, Line) and new.bias_from is not None:
        if isinstance(last, Line) and last.bias_from is None:
            segments[-1] = Line(last.weight, new.bias, last.weight_from, last.flip, new.bias_from)
        else:
            segments.append(Step(new, str(new.bias_from.source)))
    elif isinstance(new, Kick) and isinstance(last, Kick):
        segments[-1] = Kick(_composed(last.map, new.map), f"{last.name}, {new.name}")
    else:
        segments.append(new)


def _composed(first: Map, second: Map) -> Map:
    return lambda x: second(first(x))


def _map(inner: Sequence[Value], fixed: Mapping[int, Tensor], start: Value) -> Map:
    """The values in `inner` as a function of `start`, on any number of states."""
    size = start.shape[0]

    def block(x: Tensor) -> Tensor:
        found = {start.id: x, **{i: t.to(x.dtype) if t.is_floating_point() else t for i, t in fixed.items()}}
        for v in inner:
            found[v.id] = evaluate(v.op, [found[a.id] for a in v.args], v.shape)
        return found[inner[-1].id]

    def on_all(x: Tensor) -> Tensor:
        # the graph was traced for a number of states: fill up to a multiple of it
        missing = -len(x) % size
        full = torch.cat([x, x[:1].expand(missing, *x.shape[1:])]) if missing else x
        return torch.cat([block(part) for part in full.split(size)])[: len(x)]

    return on_all
