"""Who writes the files of a job: this process, several on this machine, or the workers of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from regauge.errors import InputError
from regauge.jobs.job import Job, at_work, open_job
from regauge.jobs.shard import Progress, write_file

TRIES = 3  # a worker that dies is replaced; its file is written anew


def in_process(job: Job, wanted: list[int], progress: Progress) -> None:
    for i in wanted:
        write_file(job, job.files[i], progress)


def in_processes(job: Job, wanted: list[int], progress: Progress, workers: int) -> None:
    """Several processes on this machine. One that is killed is replaced, and its file written again."""
    context = multiprocessing.get_context("spawn")
    todo = set(wanted)
    threads = max(1, (os.cpu_count() or 1) // workers)
    for _ in range(TRIES):
        try:
            with ProcessPoolExecutor(
                workers, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)
            ) as pool:
                running = {pool.submit(write_one, str(job.home), job.data["identity"], i): i for i in sorted(todo)}
                while running:
                    finished, _rest = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        i = running.pop(future)
                        future.result()
                        todo.discard(i)
                        progress(job.files[i].size)
            return
        except BrokenProcessPool:
            continue
    raise InputError(
        f"{len(todo)} of {len(wanted)} files are not written: worker processes died {TRIES} times (the system may be out of "
        "memory): run the same command again with fewer --workers to go on"
    )


def on_ray(job: Job, wanted: list[int], progress: Progress, workers: int | None) -> None:
    """The workers of the Ray cluster that this process is connected to, or of one that is started here. They need the
    directory of the job under the same path. One that dies is replaced."""
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        task: Callable[..., Any] = ray.remote(max_retries=TRIES, num_cpus=1)(write_one)
        running = {task.remote(str(job.home), job.data["identity"], i): i for i in wanted}  # type: ignore[attr-defined]
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            try:
                ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, InputError) else error from None
            except ray.exceptions.RayError as error:
                raise InputError(
                    f"{job.files[running[ready]].name}: the workers of the cluster died ({type(error).__name__}): run the "
                    "same command again to go on"
                ) from None
            progress(job.files[running.pop(ready)].size)
    finally:
        if started:
            ray.shutdown()


def write_one(home: str, identity: str, i: int) -> int:
    """In a worker: write one file of the job in a directory."""
    with at_work(Path(home)):
        job = _opened(home, identity)
        write_file(job, job.files[i])
    return i


@lru_cache(maxsize=1)
def _opened(home: str, identity: str) -> Job:
    """A worker may live longer than a job, and another one may have taken its directory."""
    job = open_job(Path(home))
    if job.data["identity"] != identity:
        raise InputError(f"{home}: holds another job by now: run the same command again")
    return job


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray, which is not installed: pip install 'regauge[ray]'") from None
    return ray
