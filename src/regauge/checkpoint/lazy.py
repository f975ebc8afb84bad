"""The state dict of a model, read from its files when it is asked for, and written back under the names of the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regauge.checkpoint.naming import Group, Naming, held, naming
from regauge.checkpoint.shards import Shards, open_shards
from regauge.errors import InputError


class LazyState(Mapping[str, Tensor]):
    """Tensors by the names of the model, in the dtypes of the files. Each access reads; of what several files make
    together, the group read last is kept. near: file tensors that are in memory already, by name."""

    def __init__(self, shards: Shards, names: Naming) -> None:
        self.shards, self.naming = shards, names
        self.files = {param: file for file, param in names.plain.items()}
        self.groups: dict[str, Group] = {param: g for g in names.groups for param in g.params}
        self.last: tuple[Group, dict[str, Tensor]] | None = None
        self.near: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name in self.files:
            file = self.files[name]
            return self.near[file] if file in self.near else self.shards[file]
        return self.group(self.groups[name])[name]

    def rows(self, name: str, first: int, last: int, into: Tensor | None = None) -> Tensor:
        """Some rows of a tensor along its first axis; of a tensor that is one of the file's, nothing else is read. into:
        bytes that may be used for them."""
        if name in self.files:
            return self.shards.rows(self.files[name], first, last, into)
        return self[name][first:last]

    def group(self, group: Group) -> dict[str, Tensor]:
        """What a group of file tensors becomes; checked to come back to the same bits."""
        last = self.last
        if last is None or last[0] is not group:
            self.last = None
            stored = {n: self.shards[n] for n in group.files}
            made = self.naming.load(group, stored)
            back = self.naming.store(group, made)
            odd = [n for n in group.files if not _same_bits(stored[n], back[n])]
            if odd:
                raise InputError(
                    f"{odd[0]}: transformers converts it on loading in a way that does not come back to the same "
                    "numbers: no file can be written for it"
                )
            self.last = last = (group, made)
        return last[1]

    def stored_dtype(self, name: str) -> torch.dtype:
        from regauge.checkpoint.shards import DTYPES

        file = self.files[name] if name in self.files else self.groups[name].files[0]
        return DTYPES[self.shards.entries[file].dtype]

    def __contains__(self, name: object) -> bool:
        return name in self.files or name in self.groups

    def __iter__(self) -> Iterator[str]:
        return iter((*self.files, *self.groups))

    def __len__(self) -> int:
        return len(self.files) + len(self.groups)


def lazy_state(folder: Path, model: Any) -> LazyState:
    """The state dict of `model` (a model of transformers, on any device) from the safetensors files of a directory.

    Raises InputError where the files are not whole, a shape differs, or a parameter is in no file. A parameter that is
    tied to another needs one of its names."""
    shards = open_shards(folder)
    names = naming(model, {n: e.shape for n, e in shards.entries.items()})
    require_all(folder, model, set(held(names)))
    return LazyState(shards, names)


def require_all(folder: Path, model: Any, have: set[str]) -> None:
    """Raises InputError unless every parameter is there under one of its names."""
    names: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(name)
    missing = [n[0] for n in names.values() if not set(n) & have]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} tensor(s) of the model are in no file, the first is {min(missing)}: the download "
            "is incomplete, or config.json names another architecture than the weights have"
        )


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(_bytes(a), _bytes(b))


def _bytes(t: Tensor) -> Tensor:
    return t.contiguous().reshape(-1).view(torch.uint8)
