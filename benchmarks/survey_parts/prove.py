"""Both sides of the proof, measured apart from the library: a finite element leaves the function as it is, and the
dimension equals the nullity of the Jacobian."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from .build import Subject, token_rows


class InDouble(TorchFunctionMode):
    """Lift upcasts: whatever asks for single precision, or for none, gets double, so that errors are those of the
    mathematics."""

    def __enter__(self) -> InDouble:
        self.default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_default_dtype(self.default)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        args, kwargs = tree_map(_lifted, (args, dict(kwargs or {})))
        return func(*args, **kwargs)


def _lifted(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def doubled(subject: Subject) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    def lift(x: Any) -> Any:
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    return copy.deepcopy(subject.model).double(), tree_map(lift, subject.args), tree_map(lift, subject.kwargs)


def unsoundness(subject: Subject, gauge: Any, elements: int = 3) -> float:
    """Largest change of the output under sampled elements, in float64, relative to the output's own size."""
    pristine, args, kwargs = doubled(subject)

    def run(state: Mapping[str, Tensor]) -> Tensor:
        model = copy.deepcopy(pristine)  # some keep what they computed from other weights
        model.load_state_dict(state, strict=True)
        torch.manual_seed(0)  # types that hash at random do so alike
        with torch.no_grad(), InDouble():
            return model(*args, **kwargs)

    before = {k: v.clone() for k, v in pristine.state_dict().items()}
    reference = run(before)
    worst = 0.0
    for seed in range(elements):
        after = gauge.sample(torch.Generator().manual_seed(seed)).apply(before)
        change = (run({k: after.get(k, v) for k, v in before.items()}) - reference).abs().max() / reference.abs().max()
        worst = max(worst, float(change)) if torch.isfinite(change) else float("inf")
    return worst


def nullity(
    subject: Subject, margin: float = 1.3, tolerance: float = 1e-13, listed: Container[str] | None = None
) -> tuple[int, float]:
    """Directions of parameter space that change no output at first order, and the gap of singular values at the cut.

    Rows of the Jacobian (random combinations of outputs, two for each sample) are gathered over fresh inputs until
    there are ``margin`` times as many as parameters: a sample's own outputs share one narrow hidden state.
    Parameters count once each however many names they have. A singular value counts as zero below ``tolerance`` times
    the largest, after each parameter's columns are scaled to the same norm. Tensors that the function never reads
    belong to no group: they do not count, unless they are ``listed``.
    """
    model, args, kwargs = doubled(subject)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None  # autograd drops a row on which the function depends
    named = {n: p.requires_grad_() for n, p in model.named_parameters() if p.is_floating_point()}
    parameters = list(named.values())
    count = sum(p.numel() for p in parameters)
    blocks, rows, draw = [], 0, 0
    while rows < margin * count:
        block = _fresh_jacobian(model, (args, kwargs), parameters, draw, subject.vocabulary)
        blocks.append(block)
        rows, draw = rows + block.shape[0], draw + 1
    jacobian = torch.cat(blocks)
    scale = jacobian.norm(dim=0)
    scale[scale <= 1e-12 * scale.max()] = 1.0
    triangle = torch.linalg.qr(jacobian / scale, mode="r").R
    values = torch.linalg.svdvals(triangle)
    zero = int((values <= tolerance * values[0]).sum()) + max(0, count - len(values))
    dead = (jacobian == 0).all(0).split([p.numel() for p in parameters])
    unread = sum(
        d.numel() for n, d in zip(named, dead, strict=True) if listed is not None and n not in listed and d.all()
    )
    last, first = values[len(values) - zero - 1], values[len(values) - zero] if zero < len(values) and zero else 0.0
    return zero - unread, float(last / max(float(first), 1e-300))


def _fresh_jacobian(model: nn.Module, inputs: Any, parameters: Sequence[Tensor], draw: int, vocabulary: int) -> Tensor:
    """Tokens from the whole vocabulary, unless the model refuses some (those that stand for an image that is not there)."""
    try:
        args, kwargs = fresh(inputs, draw, vocabulary)
        return _jacobian(model, args, kwargs, parameters, draw)
    except (ValueError, IndexError):
        args, kwargs = fresh(inputs, draw)
        return _jacobian(model, args, kwargs, parameters, draw)


def _jacobian(model: nn.Module, args: Any, kwargs: Any, parameters: Sequence[Tensor], draw: int) -> Tensor:
    torch.manual_seed(0)
    with InDouble():
        full = model(*args, **kwargs)
    output, rows = full.flatten(), []
    samples = full.numel() // full.shape[-1] if full.dim() > 1 else 1
    weights = torch.randn(
        min(len(output), 2 * samples), len(output), dtype=output.dtype, generator=torch.Generator().manual_seed(draw)
    )
    for chunk in weights.split(128):
        try:
            rows.append(_pulled_back(output, parameters, chunk, batched=True))
        except RuntimeError:  # an operator without a batching rule
            rows += [_pulled_back(output, parameters, c, batched=False) for c in chunk]
    return torch.cat(rows)


def _pulled_back(output: Tensor, parameters: Sequence[Tensor], cotangents: Tensor, batched: bool) -> Tensor:
    grads = torch.autograd.grad(
        output, parameters, cotangents, retain_graph=True, allow_unused=True, is_grads_batched=batched
    )
    count = len(cotangents) if batched else 1
    return torch.cat(
        [
            torch.zeros(count, p.numel(), dtype=p.dtype) if g is None else g.reshape(count, -1)
            for p, g in zip(parameters, grads, strict=True)
        ],
        dim=1,
    )


def fresh(inputs: Any, draw: int, vocabulary: int = 0) -> Any:
    """Inputs of the same kind, drawn anew: floats normal, tokens from the vocabulary, everything else as it is."""
    rng = torch.Generator().manual_seed(1000 + draw)

    def renew(x: Any) -> Any:
        if isinstance(x, dict):
            return {
                k: token_rows(v, rng, vocabulary) if k.endswith("input_ids") and draw else renew(v)
                for k, v in x.items()
            }
        if isinstance(x, (tuple, list)):
            return type(x)(map(renew, x))
        if not isinstance(x, Tensor) or draw == 0 or not x.is_floating_point():
            return x
        return torch.randn(x.shape, generator=rng, dtype=x.dtype)

    return renew(inputs)
