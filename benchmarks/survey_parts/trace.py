"""Trace a subject, and list the operators on the float paths that depend on parameters."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram

from .build import Subject
from .replace import traceable


@dataclass(frozen=True)
class Traced:
    program: ExportedProgram
    seconds: float
    patched: bool  # whether the library's own export patches were needed


def trace(subject: Subject) -> Traced:
    """`torch.export`, without decompositions; the library's export patches only where it fails without them."""
    start = time.process_time()
    try:
        program, patched = export(subject), False
    except Exception as plain:
        with export_patches():
            try:
                program, patched = export(subject), True
            except Exception as again:
                raise again from plain
    return Traced(program, time.process_time() - start, patched)


def export(subject: Subject) -> ExportedProgram:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(subject.model, subject.args, subject.kwargs, strict=False)
        program = program.run_decompositions({})
    if sizes_depend_on_data(program):
        raise ValueError("sizes depend on data")
    return program


def sizes_depend_on_data(program: ExportedProgram) -> bool:
    return any(isinstance(size, torch.SymInt) for size in _sizes(program))


def _sizes(program: ExportedProgram) -> Iterator[Any]:
    for node in live_nodes(program):
        values = node.meta.get("val")
        for value in values if isinstance(values, (tuple, list)) else (values,):
            yield from value.shape if isinstance(value, torch.Tensor) else (value,)


@contextlib.contextmanager
def export_patches() -> Iterator[None]:
    """Transformers' own replacements of loops that cannot be traced by equivalents that can."""
    import transformers.exporters.exporter_dynamo  # noqa: F401  (registers the patches)
    from transformers.exporters.utils import apply_patches

    with apply_patches("dynamo"), traceable():
        yield


def live_nodes(program: ExportedProgram) -> list[torch.fx.Node]:
    """Nodes that reach an output, in order of execution."""
    live: set[torch.fx.Node] = set()
    for node in reversed(program.graph.nodes):
        if node.op == "output" or node in live:
            live.update(node.all_input_nodes)
    return [n for n in program.graph.nodes if n in live]


def parameter_operators(program: ExportedProgram) -> Counter[str]:
    """Overloads of live nodes with a floating-point result that depend on a parameter, with their number of nodes."""
    parameters = set(program.graph_signature.inputs_to_parameters)
    depends: set[torch.fx.Node] = set()
    counts: Counter[str] = Counter()
    for node in live_nodes(program):
        if node.op == "placeholder" and node.name in parameters:
            depends.add(node)
        elif node.op == "call_function" and any(n in depends for n in node.all_input_nodes) and _is_float(node):
            depends.add(node)
            counts[operator_name(node.target)] += 1
    return counts


def operator_name(target: Any) -> str:
    return str(target).removeprefix("aten.").removesuffix(".default") if hasattr(target, "_schema") else str(target)


def _is_float(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else (value,)
    return any(isinstance(v, torch.Tensor) and (v.is_floating_point() or v.is_complex()) for v in values)
