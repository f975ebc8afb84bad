"""Run one function over many names in parallel processes, with a time limit for each name.

A process serves many names (importing the libraries costs seconds); one that exceeds the limit is ended and replaced,
and its name is reported as out of time. A process ends with the one that started it, whatever ended that.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, cast

Job = Callable[[str], dict[str, Any]]


def run_all(job: Job, names: list[str], processes: int, limit: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Results as they come; a failure inside a job is a result with an ``error``, never an exception here."""
    context = mp.get_context("spawn")
    waiting = list(reversed(names))
    busy: dict[Connection, tuple[BaseProcess, str, float]] = {}

    def start() -> tuple[BaseProcess, Connection]:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(job, theirs), daemon=True)
        process.start()
        return process, ours

    def give(process: BaseProcess, pipe: Connection) -> None:
        if waiting:
            name = waiting.pop()
            pipe.send(name)
            busy[pipe] = (process, name, time.monotonic())
        else:
            pipe.send(None)

    for _ in range(min(processes, len(names))):
        give(*start())
    while busy:
        for pipe in cast(list[Connection], wait(list(busy), timeout=1.0)):
            process, name, _ = busy.pop(pipe)
            try:
                yield name, pipe.recv()
            except EOFError:
                yield name, {"error": "the process ended", "kind": "crash"}
                process, pipe = start()
            give(process, pipe)
        for pipe, (process, name, since) in list(busy.items()):
            if time.monotonic() - since > limit:
                del busy[pipe]
                process.terminate()
                yield name, {"error": f"more than {limit:.0f} s", "kind": "time"}
                give(*start())


def _serve(job: Job, pipe: Connection) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    while (name := pipe.recv()) is not None:
        try:
            result = job(name)
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"[:2000], "kind": "error"}
        pipe.send(result)


def _end_with_parent() -> None:
    """A parent that is killed ends no daemons, and nobody else knows the limit of a job."""
    parent = mp.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
