"""The tensors of a directory of safetensors files, read one at a time.

A tensor is read into memory of its own, not mapped: a mapped file would count as memory in use, and a file that is
truncated while it is read would end the process instead of raising.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regauge.checkpoint.weights import INDEX, read_json, safetensors_files, whole_header
from regauge.errors import InputError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
COMPUTED = ("F64", "F32", "F16", "BF16")  # what an element can move
PAGE, SPARE = 4096, 64  # bytes


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: dtype as safetensors names it, offset in bytes from the start of the file."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class Shards(Mapping[str, Tensor]):
    """The tensors of a checkpoint under the names of its files, in the order of the files. Each access reads.

    metadata: file -> the strings that the file carries. index: the metadata of the index, None if there is none."""

    folder: Path
    entries: dict[str, Entry]
    metadata: dict[str, dict[str, str]]
    index: dict[str, Any] | None

    def __getitem__(self, name: str) -> Tensor:
        return read(self.folder, self.entries[name])

    def rows(self, name: str, first: int, last: int, into: Tensor | None = None) -> Tensor:
        """Some rows of a tensor along its first axis; nothing else is read. into: bytes that are used for them."""
        return read(self.folder, part(self.entries[name], first, last), into)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def files(self) -> dict[str, tuple[Entry, ...]]:
        """file -> its tensors, in the order of their bytes."""
        found: dict[str, list[Entry]] = {name: [] for name in self.metadata}
        for entry in self.entries.values():
            found[entry.file].append(entry)
        return {name: tuple(sorted(held, key=lambda e: (e.start, e.name))) for name, held in found.items()}

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.size for entry in self.entries.values())


def open_shards(folder: Path) -> Shards:
    """The safetensors files of a directory: headers only. Raises InputError where one is missing, unreadable, truncated,
    of a dtype that is not known, or where two files hold a tensor of one name."""
    entries: dict[str, Entry] = {}
    metadata: dict[str, dict[str, str]] = {}
    for file in safetensors_files(folder):
        header = whole_header(file)
        metadata[file.name] = header.metadata
        for name, held in header.entries.items():
            if name in entries:
                raise InputError(
                    f"{folder}: {name} is in both {entries[name].file} and {file.name}: remove one of them"
                )
            if held["dtype"] not in DTYPES:
                raise InputError(
                    f"{file}: {name} is of the dtype {held['dtype']}, which torch {torch.__version__} has not"
                )
            first, last = held["data_offsets"]
            shape = tuple(held["shape"])
            if last - first != prod(shape) * DTYPES[held["dtype"]].itemsize:
                raise InputError(f"{file}: {name} has {last - first:,} bytes, which is no {held['dtype']}{list(shape)}")
            entries[name] = Entry(name, file.name, held["dtype"], shape, header.start + first, last - first)
    index = read_json(folder / INDEX).get("metadata", {}) if (folder / INDEX).is_file() else None
    return Shards(folder, entries, metadata, index)


def part(entry: Entry, first: int, last: int) -> Entry:
    """The rows from first to last as an entry of its own."""
    row = entry.size // entry.shape[0]
    return replace(
        entry, shape=(last - first, *entry.shape[1:]), start=entry.start + first * row, size=(last - first) * row
    )


def read(folder: Path, entry: Entry, into: Tensor | None = None) -> Tensor:
    """One tensor. into: bytes that it takes, where they are enough. Raises InputError where its bytes cannot be read."""
    if into is None or into.numel() < entry.size + SPARE:
        into = torch.empty(entry.size + SPARE, dtype=torch.uint8)
    raw = placed(into, entry)
    path = folder / entry.file
    try:
        with path.open("rb", buffering=0) as stream:
            stream.seek(entry.start)
            view = memoryview(raw.numpy().data)
            done = 0
            while done < entry.size:
                got = stream.readinto(view[done : done + (1 << 28)])
                if not got:
                    raise InputError(
                        f"{path}: ends within {entry.name}: it was cut while it was read, or is truncated: download it again"
                    )
                done += got
    except OSError as error:
        raise InputError(f"{path}: {entry.name} cannot be read ({error.strerror}): check the disk it lies on") from None
    return typed(raw, entry)


def placed(into: Tensor, entry: Entry) -> Tensor:
    """The bytes for a tensor in memory with SPARE bytes more. Where a copy stands in its page a little behind what it is
    copied from, processors wait for their own stores: four times slower, measured."""
    shift = SPARE if 0 < (into.data_ptr() - entry.start) % PAGE < SPARE else 0
    return into[shift : shift + entry.size]


def typed(raw: Tensor, entry: Entry) -> Tensor:
    """The bytes of a tensor as the tensor."""
    dtype = DTYPES[entry.dtype]
    return raw.view(dtype).reshape(entry.shape) if entry.size else torch.empty(entry.shape, dtype=dtype)
