"""The files that hold a checkpoint's tensors: which they are, whether they are whole, whether the numbers are
finite."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from regauge.errors import InputError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
MAX_HEADER = 100_000_000  # the limit of the safetensors format


def read_json(path: Path) -> dict:
    """The object in a JSON file. Raises InputError where it cannot be read or is no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the path and its permissions") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}): download or write the file again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a JSON {type(value).__name__} where an object is needed: download it again")
    return value


def safetensors_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, in the order of its index; checked to exist, not yet read."""
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise InputError(f"{folder / INDEX}: has no weight_map: download the index again")
        files = tuple(folder / name for name in dict.fromkeys(weight_map.values()))
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise InputError(
                f"{folder}: {len(missing)} of {len(files)} shards that {INDEX} names are missing "
                f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}): download them too"
            )
        return files
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    if any((folder / name).is_file() for name in PICKLED):
        raise InputError(
            f"{folder}: holds pickled weights only, which may run code when read: save the model once with "
            "safe_serialization=True and name that directory"
        )
    raise InputError(
        f"{folder}: holds a config but no weights ({SINGLE} or {INDEX}): download the weights, or use "
        "`regauge inspect`, which needs none"
    )


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself. entries: name -> {dtype, shape, data_offsets}; start: where the data begin."""

    entries: dict[str, dict]
    metadata: dict[str, str]
    start: int


def read_header(path: Path) -> dict[str, dict]:
    """The entries of a safetensors file, name -> {dtype, shape, data_offsets}.

    Raises InputError where the file cannot be read, or is shorter than its header promises."""
    return whole_header(path).entries


def whole_header(path: Path) -> Header:
    """The entries of a safetensors file with its metadata. Raises InputError as `read_header` does."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            return _parsed(path, size, stream.read(8), stream)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the path and its permissions") from None


def _parsed(path: Path, size: int, prefix: bytes, stream: BinaryIO) -> Header:
    if len(prefix) < 8:
        raise InputError(f"{path}: truncated: {size} bytes are no safetensors file: download it again")
    length = struct.unpack("<Q", prefix)[0]
    if length > min(MAX_HEADER, size - 8):
        raise InputError(
            f"{path}: truncated or no safetensors file: the header should take {length:,} bytes, the file "
            f"has {size:,}: download it again"
        )
    try:
        header = json.loads(stream.read(length))
    except ValueError:
        raise InputError(f"{path}: the safetensors header is not valid JSON: download the file again") from None
    metadata = header.pop("__metadata__", None) or {}
    promised = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size < promised:
        raise InputError(
            f"{path}: truncated: the header promises {promised:,} bytes, the file has {size:,}: download it again"
        )
    return Header(header, metadata, 8 + length)


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], source: str) -> None:
    """Raises InputError that names the first tensor with NaN or infinite numbers, and how many tensors have some."""
    bad = [
        (name, value)
        for name, value in tensors
        if value.is_floating_point() and not value.is_meta and not torch.isfinite(value).all()
    ]
    if not bad:
        return
    name, value = bad[0]
    where = (~torch.isfinite(value)).nonzero()
    more = f" (and {len(bad) - 1} more tensors)" if len(bad) > 1 else ""
    raise InputError(
        f"{source}: {name}{more} has {len(where):,} of {value.numel():,} numbers NaN or infinite, the first "
        f"at {where[0].tolist()}: no function to preserve; take another copy or revision of the weights"
    )
