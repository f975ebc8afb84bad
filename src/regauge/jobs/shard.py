"""One file of a job: idempotent, so that any process may do it, again if need be, and write the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from torch import Tensor

from regauge.checkpoint.naming import Group
from regauge.checkpoint.shards import DTYPES
from regauge.checkpoint.weights import read_json
from regauge.checkpoint.writer import header, write_safetensors
from regauge.errors import InputError
from regauge.jobs import files
from regauge.jobs.job import Job, process_tag
from regauge.jobs.layout import OutFile
from regauge.solve.state import State

Progress = Callable[[int], None]  # bytes that were written since the last call


def done(job: Job, f: OutFile) -> str | None:
    """The sha256 of a file of the job if it is written, whole and unchanged."""
    record, path = job.home / "done" / f"{f.name}.json", job.result / f.name
    if not record.is_file() or not path.is_file():
        return None
    held = read_json(record)
    return held["sha256"] if held["size"] == path.stat().st_size and files.sha256(path) == held["sha256"] else None


def recorded(job: Job, f: OutFile) -> bool:
    """Whether some process has said that it wrote this file."""
    return (job.home / "done" / f"{f.name}.json").is_file()


def write_file(job: Job, f: OutFile, progress: Progress | None = None) -> None:
    """Write one file, unless it is there. Raises InputError where the disk is full or the input cannot be read."""
    if recorded(job, f) and done(job, f) is not None:
        if progress is not None:
            progress(f.size)
        return
    part = job.home / "parts" / f"{f.name}.{process_tag()}"
    images = Images(job)
    try:
        found = write_safetensors(part, f.slots, f.metadata, images.tensor, progress)
        size = part.stat().st_size
        part.replace(job.result / f.name)
    finally:
        part.unlink(missing_ok=True)
    files.write_json(job.home / "done" / f"{f.name}.json", {"sha256": found, "size": size})


def size_of(f: OutFile) -> int:
    """Bytes of the whole file."""
    return len(header(f.slots, f.metadata)) + f.size


class Images:
    """The tensors of the result under the names of the files, each computed when it is asked for."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.moved: State = job.element.moved(job.before())
        self.canonical = job.canonical()
        self.last: tuple[Group, dict[str, Tensor]] | None = None

    @cached_property
    def groups(self) -> dict[str, Group]:
        return {n: g for g in self.job.naming.groups for n in g.files}

    def tensor(self, name: str) -> Tensor:
        """A tensor of the result in its stored dtype; the bytes of the input where the element does not change it."""
        if name in self.groups:
            return self._group(self.groups[name])[name]
        source = self.job.data["added"].get(name, name)
        param = self.job.naming.plain.get(name)
        shards = self.job.state.lazy.shards
        made = None if param is None else self._image(param, DTYPES[shards.entries[source].dtype])
        return shards[source] if made is None else made

    def _image(self, param: str, stored: object) -> Tensor | None:
        name = self.canonical.get(param)
        made = None if name is None else self.job.image(self.moved, name)
        return None if made is None else made.to(stored)  # type: ignore[call-overload]

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


def require_whole(job: Job) -> dict[str, str]:
    """file -> sha256, read again from the disk. Raises InputError where a file is missing or was changed."""
    found = {f.name: done(job, f) for f in job.files}
    odd = [name for name, digest in found.items() if digest is None]
    if odd:
        raise InputError(
            f"{job.result / odd[0]}: is missing or was changed since it was written: run the same command again"
        )
    return {name: digest for name, digest in found.items() if digest is not None}
