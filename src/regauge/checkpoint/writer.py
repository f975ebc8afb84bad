"""Safetensors files written tensor by tensor: the header first, since all shapes are known, then the bytes as they come."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from regauge.checkpoint.shards import DTYPES
from regauge.errors import InputError

ALIGNED = 8
UINT8 = torch.uint8
BLOCK = 1 << 22  # bytes written at a time
AHEAD = 1  # tensors that wait while another is written: two are in memory beside the one that is computed


@dataclass(frozen=True)
class Slot:
    """One tensor to be written: its name, its dtype as safetensors names it, its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        n = DTYPES[self.dtype].itemsize
        for k in self.shape:
            n *= k
        return n


def header(slots: Iterable[Slot], metadata: dict[str, str]) -> bytes:
    """What stands before the bytes of the tensors, which follow in the order of `slots`."""
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for slot in slots:
        entries[slot.name] = {"dtype": slot.dtype, "shape": list(slot.shape), "data_offsets": [at, at + slot.size]}
        at += slot.size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNED)
    return struct.pack("<Q", len(text)) + text


def write_safetensors(
    path: Path,
    slots: Iterable[Slot],
    metadata: dict[str, str],
    tensor: Callable[[str], Tensor],
    progress: Callable[[int], None] | None = None,
    written: Callable[[Tensor], None] | None = None,
) -> str:
    """Write one file; `tensor(name)` is asked for each slot in order. Returns the sha256 of the file.

    The next tensor is computed while the last one is written and hashed. written: given each tensor when that is done, from
    another thread. Raises InputError where the disk is full."""
    slots = tuple(slots)
    digest = hashlib.sha256()
    queue: Queue[tuple[Tensor, Tensor | None] | bytes | None] = Queue(maxsize=AHEAD)
    failed: list[BaseException] = []

    def drain() -> None:
        stream = None
        while (item := queue.get()) is not None:
            data, whole = (item, None) if isinstance(item, bytes) else (memoryview(item[0].numpy().data), item[1])
            try:
                if not failed:
                    stream = stream or path.open("wb", buffering=0)
                    _write_and_hash(stream.fileno(), data, digest)
                    if progress is not None:
                        progress(len(data))
            except BaseException as error:
                failed.append(error)
            finally:
                if whole is not None and written is not None:
                    written(whole)
            del item, data, whole
        if stream is not None:
            stream.close()

    writer = Thread(target=drain)
    writer.start()
    try:
        queue.put(header(slots, metadata))
        for slot in slots:
            if failed:
                break
            t = tensor(slot.name)
            if t.dtype != DTYPES[slot.dtype] or tuple(t.shape) != slot.shape:
                raise InputError(
                    f"{slot.name} came out as {t.dtype}{list(t.shape)}, the file needs {slot.dtype}{list(slot.shape)}"
                )
            if t.numel():
                queue.put((t.contiguous().reshape(-1).view(UINT8), t))
            del t
    finally:
        queue.put(None)
        writer.join()
    if failed:
        raise _explained(path, failed[0])
    return digest.hexdigest()


def _write_and_hash(handle: int, data: Any, digest: Any) -> None:
    """Both at once, where there is enough to do."""
    if len(data) <= BLOCK:
        _write_all(handle, data)
        digest.update(data)
        return
    hashing = Thread(target=digest.update, args=(data,))
    hashing.start()
    try:
        _write_all(handle, data)
    finally:
        hashing.join()


def _write_all(handle: int, data: Any) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view[:BLOCK]) :]


def _explained(path: Path, error: BaseException) -> BaseException:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{path.parent}: the disk is full: free some space and run the same command again to go on")
    if isinstance(error, OSError):
        return InputError(f"{path}: cannot be written ({error.strerror}): check the directory and its permissions")
    return error
