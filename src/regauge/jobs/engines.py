"""Who writes the files of a job: this process, several on this machine, or the workers of a Ray cluster."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from regauge.errors import InputError
from regauge.jobs.job import Job, at_work, open_job
from regauge.jobs.shard import Images, Progress, write_file

PR_SET_PDEATHSIG = 1  # of prctl(2)
TRIES = 3  # a worker that dies is replaced; its file is written anew


def in_process(job: Job, wanted: list[int], progress: Progress) -> dict[str, str]:
    """Returns the sha256 of each file, as all engines do."""
    with Images(job) as images:
        return {job.files[i].name: write_file(images, job.files[i], progress) for i in wanted}


def in_processes(job: Job, wanted: list[int], progress: Progress, workers: int) -> dict[str, str]:
    """Several processes on this machine, which share its processors; the largest files first. One that is killed is
    replaced, and its file written again."""
    todo = sorted(wanted, key=lambda i: -job.files[i].size)
    made: dict[str, str] = {}
    threads = max(1, torch.get_num_threads() // workers)
    # a forked process has the job in memory, and needs neither to import torch nor to read the gauge; of torch's own threads
    # it has none, so it keeps torch to one and starts its own
    fork = sys.platform == "linux"
    context = multiprocessing.get_context("fork" if fork else "spawn")
    opened: Any = job if fork else (str(job.home), job.data["identity"])
    for _ in range(TRIES):
        try:
            with ProcessPoolExecutor(workers, context, _begin, (opened, threads)) as pool:
                running = {pool.submit(_write, i): i for i in todo}
                while running:
                    finished, _rest = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        i = running.pop(future)
                        made[job.files[i].name] = future.result()
                        todo.remove(i)
                        progress(job.files[i].size)
            return made
        except BrokenProcessPool:
            continue
    raise InputError(
        f"{len(todo)} of {len(wanted)} files are not written: worker processes died {TRIES} times (the system may be out of "
        "memory): run the same command again with fewer --workers to go on"
    )


_working: list[Images] = []  # in a worker process: what it writes from


def _begin(opened: Job | tuple[str, str], threads: int) -> None:
    """In a worker, once."""
    torch.set_num_threads(1)
    if sys.platform == "linux":  # end with the process that began the job, however that ends
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    job = opened if isinstance(opened, Job) else _opened(*opened)
    _working.append(Images(job, threads).__enter__())


def _write(i: int) -> str:
    (images,) = _working
    with at_work(images.job.home):
        return write_file(images, images.job.files[i])


def on_ray(job: Job, wanted: list[int], progress: Progress, workers: int | None) -> dict[str, str]:
    """The workers of the Ray cluster that this process is connected to, or of one that is started here. They need the
    directory of the job under the same path. One that dies is replaced."""
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        task: Callable[..., Any] = ray.remote(max_retries=TRIES, num_cpus=1)(write_one)
        running = {task.remote(str(job.home), job.data["identity"], i): i for i in wanted}  # type: ignore[attr-defined]
        made: dict[str, str] = {}
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            try:
                made[job.files[running[ready]].name] = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, InputError) else error from None
            except ray.exceptions.RayError as error:
                raise InputError(
                    f"{job.files[running[ready]].name}: the workers of the cluster died ({type(error).__name__}): run the "
                    "same command again to go on"
                ) from None
            progress(job.files[running.pop(ready)].size)
        return made
    finally:
        if started:
            ray.shutdown()


def write_one(home: str, identity: str, i: int) -> str:
    """In a worker: write one file of the job in a directory. Returns its sha256."""
    with at_work(Path(home)):
        job = _opened(home, identity)
        with Images(job) as images:
            return write_file(images, job.files[i])


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
