"""Which tensor goes into which file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from regauge.checkpoint.shards import Shards
from regauge.checkpoint.weights import SINGLE
from regauge.checkpoint.writer import Slot
from regauge.errors import InputError

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SHARD = "model-{:05d}-of-{:05d}.safetensors"


@dataclass(frozen=True)
class OutFile:
    """A file to be written: its tensors in the order of their bytes."""

    name: str
    metadata: dict[str, str]
    slots: tuple[Slot, ...]

    @property
    def size(self) -> int:
        return sum(s.size for s in self.slots)


def parse_size(text: str) -> int:
    """ "5GB" -> 5 * 10**9. Raises InputError for what is no size."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)?\s*", text, re.IGNORECASE)
    if not found:
        raise InputError(f"{text!r} is no size: write it as 5GB, 500MB or 2GiB")
    return int(float(found[1]) * UNITS[(found[2] or "").lower()])


def layout(
    shards: Shards,
    added: Mapping[str, str],
    dropped: Collection[str],
    limit: int,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[OutFile, ...]:
    """The files of the input, if none is larger than `limit` bytes, without the dropped tensors and with each added one
    (new name -> the one that it is made from) in the file of its source; else the same order in new files of at most that
    size. shapes: of the tensors that have another shape than in the input."""
    new = shapes or {}
    extra: dict[str, list[Slot]] = {}
    for name, source in added.items():
        e = shards.entries[source]
        extra.setdefault(e.file, []).append(Slot(name, e.dtype, new.get(name, e.shape)))
    kept = tuple(
        OutFile(
            file,
            shards.metadata[file],
            (
                *(Slot(e.name, e.dtype, new.get(e.name, e.shape)) for e in entries if e.name not in dropped),
                *extra.get(file, ()),
            ),
        )
        for file, entries in shards.files.items()
    )
    if all(f.size <= limit for f in kept):
        return kept
    return _repacked([s for f in kept for s in f.slots], kept[0].metadata, limit)


def _repacked(slots: Sequence[Slot], metadata: dict[str, str], limit: int) -> tuple[OutFile, ...]:
    bins: list[list[Slot]] = [[]]
    for s in slots:
        if bins[-1] and sum(k.size for k in bins[-1]) + s.size > limit:
            bins.append([])
        bins[-1].append(s)
    names = [SINGLE] if len(bins) == 1 else [SHARD.format(i + 1, len(bins)) for i in range(len(bins))]
    return tuple(OutFile(n, metadata, tuple(b)) for n, b in zip(names, bins, strict=True))
