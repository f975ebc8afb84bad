"""From a PyTorch model to an FX graph: the only door to torch.export."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from regauge.errors import TraceError
from regauge.graph.ir import Source
from regauge.graph.posing import posing_as_cpu

Observe = str | Callable[[Any], Any] | None

# Kept whole by torch.export but understood through their unrolled form.
UNROLLED = ("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input")


@dataclass(frozen=True)
class Captured:
    """A traced model.

    parameters: placeholder -> canonical name. aliases: canonical name -> every name of that tensor in the state dict.
    buffers: placeholder -> canonical name, for the floating-point buffers that the state dict holds. outputs: nodes that
    are observed. updates: buffer name -> node of its new value. tensors: name -> tensor (meta tensors included).
    """

    graph: fx.Graph
    parameters: dict[str, str]
    buffers: dict[str, str]
    aliases: dict[str, tuple[str, ...]]
    tensors: dict[str, Tensor]
    outputs: tuple[fx.Node, ...]
    updates: dict[str, fx.Node]
    constants: dict[str, Tensor]
    inputs: dict[str, object]
    _cache: dict[fx.Node, Any] = field(default_factory=dict, repr=False)

    def evaluate(self, node: fx.Node) -> Any:
        """The value of a node that has no parameter above it, from the example inputs and the buffers."""
        todo = [node]
        while todo:
            n = todo[-1]
            if n in self._cache:
                todo.pop()
                continue
            missing = [a for a in n.all_input_nodes if a not in self._cache]
            if missing:
                todo.extend(missing)
                continue
            self._cache[n] = self._run(n)
            todo.pop()
        return self._cache[node]

    def _run(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            value = self.constants[node.name] if node.name in self.constants else self.inputs[node.name]
            if isinstance(value, Tensor) and value.is_meta:
                raise KeyError(f"{node.name} has no values")
            return value.cpu() if isinstance(value, Tensor) else value

        def resolve(a: fx.Node) -> Any:
            return self._cache[a]

        args = fx.map_arg(node.args, resolve)
        kwargs = {k: v for k, v in fx.map_arg(node.kwargs, resolve).items() if k != "device"}
        if "device" in node.kwargs:
            kwargs["device"] = torch.device("cpu")
        with torch.no_grad():
            return node.target(*args, **kwargs)  # type: ignore[operator]


class _Observed(nn.Module):
    """The model with what it returns reduced to a flat tuple of observed floating-point tensors."""

    def __init__(self, model: nn.Module, observe: Observe) -> None:
        super().__init__()
        self.model = model
        self.observe = observe
        self.training = model.training  # not train(): the modes of the parts are the caller's

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return observed(self.model(*args, **kwargs), self.observe)


def tensors_in(output: Any) -> list[Tensor]:
    """Every floating-point tensor in nested tuples, lists, mappings and dataclasses; caches and other objects hold none."""
    match output:
        case Tensor():
            return [output] if output.is_floating_point() or output.is_complex() else []
        case Mapping():
            return [t for v in output.values() for t in tensors_in(v)]
        case list() | tuple():
            return [t for v in output for t in tensors_in(v)]
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return [t for f in dataclasses.fields(output) for t in tensors_in(getattr(output, f.name))]
    return []


def observed(output: Any, observe: Observe) -> tuple[Tensor, ...]:
    """What must not change: all tensors, the logits, the probabilities, or a function of the output."""
    match observe:
        case None:
            found = tensors_in(output)
        case "logits" | "probabilities":
            logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
            found = [logits] if isinstance(logits, Tensor) else tensors_in(output)[:1]
            if observe == "probabilities":
                found = [torch.softmax(t, -1) for t in found]
        case _ if callable(observe):
            found = tensors_in(observe(output))
        case _:
            raise TraceError(f"observe={observe!r}: expected None, 'logits', 'probabilities' or a callable")
    if not found:
        raise TraceError("the model returns no floating-point tensor to observe; pass observe=callable to choose one")
    return tuple(found)


def capture(
    model: nn.Module | torch.export.ExportedProgram,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    observe: Observe = None,
) -> Captured:
    """Trace `model` at the level where linear, convolution and attention are still whole. No weights are read.

    Raises TraceError when torch.export cannot follow the model.
    """
    if isinstance(model, torch.export.ExportedProgram):
        if callable(observe):
            raise TraceError("an exported program cannot be observed through a callable: export the wrapped model")
        return _read(model, "", observe)
    wrapped = _Observed(model, observe)
    try:
        with warnings.catch_warnings(), _placed(model, args, kwargs), _without_dump():
            warnings.simplefilter("ignore")
            program = torch.export.export(wrapped, tuple(args), dict(kwargs or {}), strict=False)
            program = program.run_decompositions(_table())
    except TraceError:
        raise
    except Exception as error:  # torch.export raises a dozen unrelated types
        raise TraceError(_one_line(error)) from error
    return _read(program, "model.", None, model)


@contextmanager
def _without_dump() -> Iterator[None]:
    """torch.export prints the graph as far as it came before it raises; what the model itself prints stays."""
    said = io.StringIO()
    with redirect_stderr(said):
        yield
    sys.stderr.write(said.getvalue())


def _placed(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> AbstractContextManager[None]:
    """Meta parameters pass for CPU ones where the inputs are real."""
    flat, _ = torch.utils._pytree.tree_flatten((tuple(args), dict(kwargs or {})))
    real = not any(isinstance(t, Tensor) and t.is_meta for t in flat)
    return posing_as_cpu(model) if real else nullcontext()


def _table() -> dict[Any, Callable[..., Any]]:
    from torch._decomp import get_decompositions

    aten = torch.ops.aten
    wanted = []
    for name in UNROLLED:
        packet, overload = name.split(".")
        wanted.append(getattr(getattr(aten, packet), overload))
    return dict(get_decompositions(wanted))


def _one_line(error: Exception) -> str:
    text = str(error)
    place = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', text)
    place = [p for p in place if "/torch/" not in p[0]] or place
    where = f" at {short(place[-1][0])}:{place[-1][1]} ({place[-1][2]})" if place else ""
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if "data-dependent" in text.lower() or "GuardOnDataDependent" in type(error).__name__:
        first = "control flow depends on the values of a tensor"
    way = (
        "Rewrite that line without data-dependent control flow"
        if "control flow" in first
        else "Check the example inputs, or pass other ones"
    )
    return f"torch.export cannot trace the model{where}: {first[:300].rstrip('.')}. {way}."


def short(path: str) -> str:
    """The last two parts of a path: enough to find the file, nothing about the machine."""
    return "/".join(path.split("/")[-2:]) if "site-packages" in path else path.split("/")[-1]


def _read(
    program: torch.export.ExportedProgram, prefix: str, observe: Observe, model: nn.Module | None = None
) -> Captured:
    signature = program.graph_signature
    state: dict[str, Tensor] = {}
    if model is not None:
        state.update(model.named_parameters(remove_duplicate=False))
        state.update(model.named_buffers(remove_duplicate=False))
    else:
        state.update(program.state_dict)
    saved = set(model.state_dict()) if model is not None else set(program.state_dict)
    groups: dict[int, list[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor) if model is not None else _storage(tensor), []).append(name)
    canonical = {name: names[0] for names in groups.values() for name in names}

    parameters = {node: canonical[_strip(name, prefix)] for node, name in signature.inputs_to_parameters.items()}
    buffers, constants = {}, {}
    generator = torch.Generator().manual_seed(0)
    for node, name in signature.inputs_to_buffers.items():
        name = _strip(name, prefix)
        tensor = state[name] if name in state else program.constants[name]
        if tensor.is_floating_point() and name in saved:
            buffers[node] = canonical[name]
        constants[node] = _generic(tensor, generator)
    for node, name in signature.inputs_to_lifted_tensor_constants.items():
        constants[node] = program.constants[name]
    for node, name in signature.inputs_to_lifted_custom_objs.items():
        raise TraceError(f"the model calls a custom object ({name}) that has no tensor form ({node})")

    flat = _flat_inputs(program)
    inputs = dict(zip(signature.user_inputs, flat, strict=False))
    nodes = {n.name: n for n in program.graph.nodes}
    output = next(n for n in program.graph.nodes if n.op == "output").args[0]
    by_name = {n.name: n for n in output if isinstance(n, fx.Node)}
    user = [by_name[n] for n in signature.user_outputs if n in by_name]
    user = [n for n in user if isinstance(n.meta.get("val"), Tensor) and n.meta["val"].is_floating_point()]
    updates = {canonical.get(_strip(name, prefix), name): nodes[n] for n, name in signature.buffers_to_mutate.items()}
    if observe == "logits":
        user = user[:1]
    return Captured(
        graph=_with_probabilities(program.graph, user) if observe == "probabilities" else program.graph,
        parameters=parameters,
        buffers=buffers,
        aliases={names[0]: tuple(n for n in names if n in saved) or (names[0],) for names in groups.values()},
        tensors={name: state[name] for names in groups.values() for name in names[:1]},
        outputs=tuple(user[:1] if observe == "probabilities" else user),
        updates=updates,
        constants=constants,
        inputs=inputs,
    )


def _with_probabilities(graph: fx.Graph, user: list[fx.Node]) -> fx.Graph:
    last = user[0]
    with graph.inserting_after(last):
        node = graph.call_function(torch.ops.aten.softmax.int, (last, -1))
    node.meta["val"] = last.meta["val"]
    user[0] = node
    return graph


def _flat_inputs(program: torch.export.ExportedProgram) -> list[object]:
    if program.example_inputs is None:
        return []
    args, kwargs = program.example_inputs
    flat, _ = torch.utils._pytree.tree_flatten((args, kwargs))
    return flat


def _strip(name: str, prefix: str) -> str:
    return name.removeprefix(prefix)


def _storage(tensor: Tensor) -> int:
    return hash((tensor.data_ptr(), tensor.shape, tensor.stride())) if tensor.device.type != "meta" else id(tensor)


def _generic(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """A buffer without values stands for any: a generic one has no more symmetry than the real one's function needs."""
    if not tensor.is_meta:
        return tensor
    if tensor.is_floating_point():
        return torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype) + 0.1
    return tensor


def source_of(node: fx.Node) -> Source:
    """The operator and the innermost line of the model that called it."""
    trace = node.meta.get("stack_trace") or ""
    places = re.findall(r'File "([^"]+)", line (\d+)', trace)
    inner = [p for p in places if "/torch/nn/" not in p[0]] or places
    place = f"{short(inner[-1][0])}:{inner[-1][1]}" if inner else ""
    stack = node.meta.get("nn_module_stack") or {}
    module = list(stack.values())[-1][0] if stack else ""
    module = module.removeprefix("L['self'].").removeprefix("model.") if module else ""
    name = str(node.target).removesuffix(".default")
    return Source(f"{name} in {module}" if module else name, place)
