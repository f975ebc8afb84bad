"""The other side of the proof: the nullity of the Jacobian d outputs / d parameters at generic parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regauge.check.lift import leaky, plain_eps

from .build import Subject, token_rows
from .prove import InDouble, doubled
from .rank import NULL, Rank, rank
from .tape import Choices, Smeared, Uncut

DRAWS, FEWEST = 12, 1500  # sets of inputs, and rows, at least
ROUNDS = 4  # how often rows are added before the count is taken as it is
DROWNED = 1e-12  # a column this small beside the largest is rounding


@dataclass(frozen=True)
class Nullity:
    """How many directions of `columns` parameters change no output at first order, None if there are more columns than
    asked for; `gap`: of singular values at the cut. `unread`: tensors that no output reads, with their sizes; they do not
    count."""

    columns: int
    directions: int | None
    gap: float
    unread: Mapping[str, int]


def nullity(subject: Subject, most: int = 1 << 20) -> Nullity:
    """Directions of parameter space that change no output at first order.

    Rows of the Jacobian (random combinations of outputs, two for each sample) are gathered over fresh inputs until
    further ones see none of the directions that are left: a sample's own outputs share one narrow hidden state.
    Parameters count once each however many names they have, scaled to the same norm. A tiny eps counts as a larger one, a
    relu as a leaky one, a jump as a rise, a choice by what it is made from: what has a symmetry and what has none stays so.
    """
    model, args, kwargs = doubled(subject)
    named = {n: p.requires_grad_() for n, p in model.named_parameters() if p.is_floating_point()}
    source = _Rows(model, (args, kwargs), subject.vocabulary, named)
    sizes = {n: p.numel() for n, p in source.parameters.items()}
    columns = sum(sizes.values())
    unread = {n: p.numel() for n, p in named.items() if n not in sizes}
    if columns > most:
        return Nullity(columns, None, 0.0, unread)
    live, found = _settled(source, columns)
    dead = dict(zip(sizes, (~live).split(list(sizes.values())), strict=True))
    unread |= {n: sizes[n] for n, d in dead.items() if d.all()}
    rows = sum(int(d.sum()) for n, d in dead.items() if n not in unread)
    return Nullity(columns, int(live.sum()) - found.rank + rows, found.gap, unread)


def _settled(source: _Rows, columns: int) -> tuple[Tensor, Rank]:
    """Which columns are not zero, and the rank of those, with rows enough."""
    jacobian = source.gather(max(FEWEST, columns + columns // 16 + 32), DRAWS)
    for left in reversed(range(ROUNDS)):
        live = (jacobian != 0).any(0)
        kept = jacobian[:, live]
        scale = kept.norm(dim=0)
        scale[scale <= DROWNED * scale.max()] = 1.0
        found = rank(kept.div_(scale))
        del kept
        fresh = source.gather(1, DRAWS // 4)
        if not left or not _sees(fresh, live, found.null / scale[:, None]):
            break
        jacobian = torch.cat([jacobian, fresh, source.gather(columns // 2)])
    return live, found


def _sees(rows: Tensor, live: Tensor, null: Tensor) -> bool:
    """Whether further rows move along directions that the others did not."""
    if bool((rows[:, ~live] != 0).any()):
        return True
    return bool(null.shape[1]) and bool((rows[:, live] @ (null / null.norm(dim=0))).norm() > NULL * rows.norm())


class _Rows:
    """The Jacobian's rows, over one draw of inputs after another; `parameters`: those that the function reads."""

    def __init__(self, model: nn.Module, inputs: Any, vocabulary: int, named: Mapping[str, Tensor]) -> None:
        self.model, self.inputs, self.vocabulary, self.draw = model, inputs, vocabulary, 0
        with InDouble(), Uncut():
            output, _ = outputs(model, *inputs)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(0), dtype=output.dtype)
        grads = torch.autograd.grad(output, list(named.values()), weights, allow_unused=True)
        self.parameters = {n: p for (n, p), g in zip(named.items(), grads, strict=True) if g is not None}

    def gather(self, least: int, draws: int = 1) -> Tensor:
        """At least so many rows, from at least so many draws."""
        blocks: list[Tensor] = []
        while sum(map(len, blocks)) < least or len(blocks) < draws:
            blocks.append(self._fresh())
            self.draw += 1
        return torch.cat(blocks)

    def _fresh(self) -> Tensor:
        """Tokens from the whole vocabulary, unless the model refuses some (those that stand for an image that is not
        there)."""
        try:
            args, kwargs = fresh(self.inputs, self.draw, self.vocabulary)
            return _jacobian(self.model, args, kwargs, list(self.parameters.values()), self.draw)
        except (ValueError, IndexError):
            args, kwargs = fresh(self.inputs, self.draw)
            return _jacobian(self.model, args, kwargs, list(self.parameters.values()), self.draw)


def outputs(model: nn.Module, args: Any, kwargs: Any) -> tuple[Tensor, int]:
    """The model's output and what its choices are made from, as one vector; how many samples they stand for."""
    with Choices() as choices:
        full = model(*args, **kwargs)
    samples = full.numel() // full.shape[-1] if full.dim() > 1 else 1
    return torch.cat([x.flatten() for x in (full, *choices.scores)]), samples


def _jacobian(model: nn.Module, args: Any, kwargs: Any, parameters: Sequence[Tensor], draw: int) -> Tensor:
    torch.manual_seed(draw)  # what a model draws itself is drawn anew like its inputs
    with InDouble(), Uncut(), Smeared(), leaky(), plain_eps():
        output, samples = outputs(model, args, kwargs)
    rows: list[Tensor] = []
    weights = torch.randn(
        min(len(output), 2 * samples), len(output), dtype=output.dtype, generator=torch.Generator().manual_seed(draw)
    )
    for chunk in weights.split(128):
        try:
            rows.append(_pulled_back(output, parameters, chunk, batched=True))
        except RuntimeError:  # an operator without a batching rule
            rows += [_pulled_back(output, parameters, c, batched=False) for c in chunk]
    made = torch.cat(rows)
    return made / made.norm(dim=1, keepdim=True).clamp_min(1e-300)


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
        return _waves(x.shape, rng, x.dtype)

    return renew(inputs)


def _waves(shape: torch.Size, rng: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Normal noise, white and constant over all later axes for each axis in turn, with a random amplitude: some units
    saturate and others do not, and what pools read differs between samples."""
    grains = [shape[: k + 1] + (1,) * (len(shape) - k - 1) for k in range(len(shape))]
    noise = sum((torch.randn(g, generator=rng, dtype=dtype) for g in grains), torch.zeros(shape, dtype=dtype))
    return noise * torch.exp(torch.randn((), generator=rng, dtype=dtype)) / max(1, len(shape)) ** 0.5
