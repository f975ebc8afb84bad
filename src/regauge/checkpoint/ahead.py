"""The tensors of one file, read in their order by a thread of its own, a little ahead of who uses them, and hashed on the
way."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import BinaryIO

from torch import Tensor

from regauge.checkpoint.buffers import Buffers
from regauge.checkpoint.shards import SPARE, Entry, placed, typed
from regauge.errors import InputError

CHUNK = 1 << 20  # bytes that are hashed while they are still in the processor's cache


class Ahead:
    """Reads one file from beginning to end. Iterating gives the wanted tensors, in the order of their bytes, in memory of
    `buffers`, to which the user gives each back. Raises InputError as `shards.read` does.

    entries: all of the file. After the last tensor `digest()` is the sha256 of the file."""

    def __init__(self, path: Path, entries: Sequence[Entry], wanted: Collection[str], buffers: Buffers) -> None:
        self.path, self.buffers, self.wanted = path, buffers, frozenset(wanted)
        self.entries = sorted(entries, key=lambda e: (e.start, e.name))
        self.ready: SimpleQueue[Tensor | BaseException] = SimpleQueue()
        self.sha = hashlib.sha256()
        self.thread = Thread(target=self._read_all, daemon=True)

    def __enter__(self) -> Ahead:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self.buffers.close()
        self.thread.join()

    def __iter__(self) -> Iterator[tuple[Entry, Tensor]]:
        for e in self.entries:
            if e.name in self.wanted:
                yield e, typed(self._next(), e)

    def digest(self) -> str:
        """The sha256 of the whole file. Raises what reading its end raised."""
        self.thread.join()
        while not self.ready.empty():
            self._next()
        return self.sha.hexdigest()

    def _next(self) -> Tensor:
        found = self.ready.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _read_all(self) -> None:
        try:
            with self.path.open("rb", buffering=0) as stream:
                scratch = memoryview(bytearray(CHUNK))
                at = 0
                for e in self.entries:
                    if e.name not in self.wanted:
                        continue
                    if e.start < at:
                        raise InputError(f"{self.path}: {e.name} overlaps the tensor before it: write the file again")
                    self._pass(stream, scratch, e.start - at)
                    raw = placed(self.buffers.take(e.size + SPARE), e)
                    if self.buffers.closed:
                        return
                    self._fill(stream, memoryview(raw.numpy().data), e)
                    at = e.start + e.size
                    self.ready.put(raw)
                while got := stream.readinto(scratch):
                    self.sha.update(scratch[:got])
        except OSError as error:
            self.ready.put(InputError(f"{self.path}: cannot be read ({error.strerror}): check the disk it lies on"))
        except BaseException as error:
            self.ready.put(error)

    def _pass(self, stream: BinaryIO, scratch: memoryview, size: int) -> None:
        """Hash what lies between two tensors."""
        while size > 0 and (got := stream.readinto(scratch[: min(size, CHUNK)])):  # type: ignore[attr-defined]
            self.sha.update(scratch[:got])
            size -= got

    def _fill(self, stream: BinaryIO, view: memoryview, e: Entry) -> None:
        done = 0
        while done < e.size:
            got = stream.readinto(view[done : done + CHUNK])  # type: ignore[attr-defined]
            if not got:
                raise InputError(
                    f"{self.path}: ends within {e.name}: it was cut while it was read, or is truncated: download it again"
                )
            self.sha.update(view[done : done + got])
            done += got
