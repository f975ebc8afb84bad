"""One file of a job: idempotent, so that any process may do it, again if need be, and write the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regauge.checkpoint.ahead import Ahead
from regauge.checkpoint.buffers import Buffers, keep_freed_memory
from regauge.checkpoint.naming import Group
from regauge.checkpoint.shards import DTYPES
from regauge.checkpoint.weights import read_json
from regauge.checkpoint.writer import header, write_safetensors
from regauge.errors import InputError
from regauge.jobs import files
from regauge.jobs.job import Job, process_tag
from regauge.jobs.layout import OutFile
from regauge.solve.state import State

IN_FLIGHT = 1 << 28  # bytes of the input that are read ahead, or one tensor
TENSORS = 3  # one is read, one waits, one is computed
Progress = Callable[[int], None]  # bytes that were written since the last call


def done(job: Job, f: OutFile) -> str | None:
    """The sha256 of a file of the job if it is written, whole and unchanged."""
    path, held = job.result / f.name, record_of(job, f)
    if held is None or not path.is_file():
        return None
    return held["sha256"] if held["size"] == path.stat().st_size and files.sha256(path) == held["sha256"] else None


def record_of(job: Job, f: OutFile) -> dict[str, Any] | None:
    """What the process that wrote a file has said of it: sha256, size, and of the file that it read, its sha256."""
    path = job.home / "done" / f"{f.name}.json"
    return read_json(path) if path.is_file() else None


def write_file(images: Images, f: OutFile, progress: Progress | None = None) -> str:
    """Write one file, unless it is there. Returns its sha256. Raises InputError where the disk is full or the input cannot
    be read."""
    job = images.job
    if record_of(job, f) is not None and (found := done(job, f)) is not None:
        if progress is not None:
            progress(f.size)
        return found
    part = job.home / "parts" / f"{f.name}.{process_tag()}"
    try:
        found, read = images.write(f, part, progress)
        size = part.stat().st_size
        part.replace(job.result / f.name)
    finally:
        part.unlink(missing_ok=True)
    files.write_json(job.home / "done" / f"{f.name}.json", {"sha256": found, "size": size, "input": read})
    return found


def size_of(f: OutFile) -> int:
    """Bytes of the whole file."""
    return len(header(f.slots, f.metadata)) + f.size


class Images:
    """The tensors of the result under the names of the files. threads: how many share the work on one tensor."""

    def __init__(self, job: Job, threads: int | None = None) -> None:
        self.job = job
        threads = threads or torch.get_num_threads()
        alone = threads == 1  # handing work to another thread would only cost
        self.crew = None if alone else ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self.moved: State = job.element.moved(job.before(crew=self.crew))
        self.canonical = job.canonical()
        self.last: tuple[Group, dict[str, Tensor]] | None = None
        self.lent = Buffers(IN_FLIGHT, TENSORS)

    def __enter__(self) -> Images:
        keep_freed_memory()
        return self

    def __exit__(self, *_: object) -> None:
        threads = torch.get_num_threads()
        if self.crew is not None:
            self.crew.shutdown()
        torch.set_num_threads(threads)  # parts of torch keep one number for all threads

    @cached_property
    def groups(self) -> dict[str, Group]:
        return {n: g for g in self.job.naming.groups for n in g.files}

    def write(self, f: OutFile, path: Path, progress: Progress | None = None) -> tuple[str, str | None]:
        """Write one file of the result: while a tensor is computed the next one is read, and the last one is written; both
        are hashed. Returns the sha256 of the file, and of the input's file of the same name, where it was all read for it."""
        shards = self.job.state.lazy.shards
        plain = [s.name for s in f.slots if s.name in shards.entries and s.name not in self.groups]
        whole = f.name in shards.files and {shards.entries[n].file for n in plain} <= {f.name}
        if not whole:
            return write_safetensors(path, f.slots, f.metadata, self.parts, progress), None

        with Ahead(shards.folder / f.name, shards.files[f.name], plain, self.lent) as ahead:
            coming = iter(ahead)

            def parts(name: str) -> Iterator[Tensor]:
                if name not in ahead.wanted:
                    yield from self.parts(name)
                    return
                entry, stored = next(coming)
                assert entry.name == name, "the order of a file that is kept is that of its bytes"
                kept = False
                for part in self.parts(name, stored):
                    kept = kept or part.data_ptr() == stored.data_ptr()
                    yield part
                if not kept:
                    self.lent.give(stored)

            found = write_safetensors(path, f.slots, f.metadata, parts, progress, self.lent.give)
            return found, ahead.digest()

    def parts(self, name: str, stored: Tensor | None = None) -> Iterable[Tensor]:
        """A tensor of the result in its stored dtype, whole or in flat parts one after another; what stands in the input
        where the element does not change it. stored: that, where it has been read."""
        if name in self.groups:
            return (self._group(self.groups[name])[name],)
        lazy = self.job.state.lazy
        source = self.job.data["added"].get(name, name)
        param = self.canonical.get(self.job.naming.plain.get(name, ""))
        if stored is not None:
            lazy.near = {source: stored}
        try:
            dtype = DTYPES[lazy.shards.entries[source].dtype]
            made = None if param is None else self.job.parts(self.moved, param, dtype)
            if made is not None:
                return made
            return (lazy.shards[source] if stored is None else stored,)
        finally:
            lazy.near = {}

    def _image(self, param: str, dtype: torch.dtype) -> Tensor | None:
        name = self.canonical.get(param)
        return None if name is None else self.job.image(self.moved, name, dtype)

    def _group(self, group: Group) -> dict[str, Tensor]:
        if self.last is None or self.last[0] is not group:
            self.last = None
            lazy = self.job.state.lazy
            made = {}
            for param in group.params:
                image = self._image(param, lazy.stored_dtype(param))
                made[param] = lazy[param] if image is None else image
            self.last = (group, lazy.naming.store(group, made))
        return self.last[1]


def require_whole(job: Job, known: Mapping[str, str]) -> dict[str, str]:
    """file -> sha256: `known`, of those that this run has written or hashed, and the others read again from the disk. Raises
    InputError where a file is missing or was changed."""
    found = {f.name: known[f.name] if f.name in known and still(job, f) else done(job, f) for f in job.files}
    odd = [name for name, digest in found.items() if digest is None]
    if odd:
        raise InputError(
            f"{job.result / odd[0]}: is missing or was changed since it was written: run the same command again"
        )
    return {name: digest for name, digest in found.items() if digest is not None}


def still(job: Job, f: OutFile) -> bool:
    """Whether the file is there, as long as it should be."""
    path = job.result / f.name
    return path.is_file() and path.stat().st_size == size_of(f)
