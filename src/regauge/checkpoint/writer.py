"""Safetensors files written part by part: the header first, since all shapes are known, then the bytes as they come.

Each part is written by one thread and hashed by the next while it is in the processor's cache, and the ones after it are
computed meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any, BinaryIO

import torch
from torch import Tensor

from regauge.checkpoint.shards import DTYPES
from regauge.errors import InputError

ALIGNED = 8
UINT8 = torch.uint8
BLOCK = 1 << 22  # bytes written at a time
WAITING = 1 << 28  # bytes that wait to be written, or one part
BEGUN = 1 << 25  # bytes after which the system is told to bring to the disk what it has
SYNC_FILE_RANGE_WRITE = 2  # of sync_file_range(2)


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
    parts: Callable[[str], Iterable[Tensor]],
    progress: Callable[[int], None] | None = None,
    written: Callable[[Tensor], None] | None = None,
) -> str:
    """Write one file. Returns its sha256. parts(name): asked for each slot in order, the tensor, or its entries in flat
    parts one after another.

    written: given each part when it is written and hashed, from another thread. Raises InputError where the disk is full."""
    slots = tuple(slots)
    with _Drain(path, progress, written) as drain:
        drain.put(torch.frombuffer(bytearray(header(slots, metadata)), dtype=UINT8))
        for slot in slots:
            missing = slot.size
            for t in parts(slot.name):
                if t.dtype != DTYPES[slot.dtype] or tuple(t.shape) not in (slot.shape, (t.numel(),)):
                    raise InputError(
                        f"{slot.name} came out as {t.dtype}{list(t.shape)}, the file needs {slot.dtype}{list(slot.shape)}"
                    )
                missing -= t.nbytes
                drain.put(t)
                del t
            if missing:
                raise InputError(
                    f"{slot.name} came out with {slot.size - missing:,} bytes, the file needs {slot.size:,}"
                )
    return drain.digest.hexdigest()


class _Drain:
    """Two threads, one that writes what is put in and one that hashes it. `put` waits while too much is on its way, and
    raises what a thread has raised; so does leaving."""

    def __init__(self, path: Path, progress: Callable[[int], None] | None, written: Callable[[Tensor], None] | None):
        self.path, self.progress, self.written = path, progress, written
        self.digest = hashlib.sha256()
        self.to_write: SimpleQueue[Tensor | None] = SimpleQueue()
        self.to_hash: SimpleQueue[Tensor | None] = SimpleQueue()
        self.threads = [Thread(target=self._write_all), Thread(target=self._hash_all)]
        self.held = 0
        self.changed = Condition()
        self.failed: BaseException | None = None

    def __enter__(self) -> _Drain:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        self.to_write.put(None)
        for thread in self.threads:
            thread.join()
        if error is None:
            self._raise_if_failed()

    def put(self, t: Tensor) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.failed or not self.held or self.held + t.nbytes <= WAITING)
            self.held += t.nbytes
        self._raise_if_failed()
        self.to_write.put(t)

    def _raise_if_failed(self) -> None:
        if self.failed is not None:
            raise _explained(self.path, self.failed) from None

    def _write_all(self) -> None:
        try:
            with self.path.open("wb", buffering=0) as stream:
                at = begun = 0
                while (t := self.to_write.get()) is not None:
                    at += _write(stream, bytes_of(t))
                    self.to_hash.put(t)
                    if at - begun >= BEGUN:
                        _begin_to_store(stream, begun, at - begun)
                        begun = at
        except BaseException as error:
            self._fail(error)
        finally:
            self.to_hash.put(None)

    def _hash_all(self) -> None:
        try:
            while (t := self.to_hash.get()) is not None:
                self.digest.update(bytes_of(t))
                if self.progress is not None:
                    self.progress(t.nbytes)
                if self.written is not None:
                    self.written(t)
                with self.changed:
                    self.held -= t.nbytes
                    self.changed.notify_all()
                del t
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self.changed:
            self.failed = self.failed or error
            self.changed.notify_all()


def bytes_of(t: Tensor) -> memoryview:
    return memoryview(t.contiguous().reshape(-1).view(UINT8).numpy().data)


def _write(stream: BinaryIO, view: memoryview) -> int:
    done = 0
    while done < len(view):
        done += os.write(stream.fileno(), view[done : done + BLOCK])
    return done


def _begin_to_store(stream: BinaryIO, at: int, size: int) -> None:
    """Have the system store these bytes while the next ones are computed, where it can be told to: a result is complete only
    when it is on the disk, and what waits until then takes as long as the writing."""
    if sys.platform == "linux" and (call := getattr(ctypes.CDLL(None), "sync_file_range", None)) is not None:
        call(stream.fileno(), ctypes.c_int64(at), ctypes.c_int64(size), SYNC_FILE_RANGE_WRITE)


def _explained(path: Path, error: BaseException) -> BaseException:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{path.parent}: the disk is full: free some space and run the same command again to go on")
    if isinstance(error, OSError):
        return InputError(f"{path}: cannot be written ({error.strerror}): check the directory and its permissions")
    return error
