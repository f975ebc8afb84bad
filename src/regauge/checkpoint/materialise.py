"""The state dict of a module as a safetensors file, each tied tensor once."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from regauge.checkpoint.shards import DTYPES
from regauge.checkpoint.weights import SINGLE
from regauge.checkpoint.writer import Slot, write_safetensors
from regauge.errors import InputError


def materialise(model: nn.Module, into: Path) -> None:
    """Write every parameter and buffer of the state dict into an existing directory. Raises InputError for a tensor of a kind
    that the format has not."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    kept: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    for name, t in state.items():
        if t.dtype not in names:
            raise InputError(f"{name} is of the dtype {t.dtype}, which safetensors has not: convert it")
        kept.setdefault(id(t), name)
    held = {name: state[name].detach() for name in kept.values()}
    slots = [Slot(n, names[t.dtype], tuple(t.shape)) for n, t in held.items()]
    write_safetensors(into / SINGLE, slots, {"format": "pt"}, lambda n: (held[n].cpu(),))
