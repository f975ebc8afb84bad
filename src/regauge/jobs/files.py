"""Files that are whole or not there: written beside and renamed, locked against a second writer, hashed."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regauge.errors import InputError

EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
AT_FDCWD = -100
CHUNK = 1 << 24


def write_json(path: Path, value: Any) -> None:
    """Write beside, then rename: never half a file."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise explained(path, error) from None
    beside.replace(path)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Of plain data, the same however its mappings are ordered."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; a process that dies lets it go."""
    with path.open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def put_in_place(made: Path, target: Path, force: bool) -> None:
    """Rename a whole directory to its final name in one step. With `force` what stands there is exchanged and removed."""
    for path in made.rglob("*"):
        _sync(path)  # a name that outlives a loss of power must have its bytes
    _sync(made)
    if not target.exists():
        made.rename(target)
        _sync(target.parent)
        return
    if not force:
        raise InputError(f"{target}: exists: name another directory, or replace it with --force")
    if not _exchange(made, target):
        old = target.with_name(f".{target.name}.old.{os.getpid()}")
        target.rename(old)
        made.rename(target)
        made = old
    _sync(target.parent)
    remove(made)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_space(folder: Path, needed: int) -> None:
    """Raises InputError if the disk that holds `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: the result needs {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free: free some space, "
            "or name a directory on another disk"
        )


def explained(path: Path, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{path.parent}: the disk is full: free some space and run the same command again to go on")
    return InputError(f"{path}: cannot be written ({error.strerror}): check the directory and its permissions")


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names at once, where the system can."""
    if not sys.platform.startswith("linux"):
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return call is not None and call(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), EXCHANGE) == 0


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
