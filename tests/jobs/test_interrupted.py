"""Killed, out of disk, shared by several processes: nothing or the whole, and always the same bytes."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from models import contents, save

from regauge.errors import InputError
from regauge.jobs.apply import apply
from regauge.jobs.shard import Images

STEPS = ["fold", {"rotate": {"bond": "stream", "how": "orthogonal", "seed": 1}}]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llama", tmp_path_factory.mktemp("origin") / "a", shard="3KB", tie_word_embeddings=False)


@pytest.fixture(scope="module")
def expected(origin: Path) -> dict[str, bytes]:
    target = origin.parent / "expected"
    apply(origin, target, STEPS)
    return contents(target)


class Interrupted(Exception):
    pass


def test_a_run_goes_on_where_it_stopped(origin: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    target = tmp_path / "b"

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        apply(origin, target, STEPS, progress=stop)
    assert not target.exists()
    home = tmp_path / ".b.regauge"
    before = {p.name: p.stat().st_mtime_ns for p in (home / "result").iterdir()}
    assert 0 < len(before) < sum(n.endswith(".safetensors") for n in expected)
    damaged = home / "result" / min(before)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    seen: dict[str, int] = {}

    def watch(stage: str) -> None:
        seen.update({p.name: p.stat().st_mtime_ns for p in (home / "result").glob("*.safetensors")})

    apply(origin, target, STEPS, tell=watch)
    assert (
        all(seen[n] == t for n, t in before.items() if n != damaged.name) and seen[damaged.name] != before[damaged.name]
    )
    assert contents(target) == expected
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_full_disk(origin: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 20_000
    honest = os.write

    def full(handle: int, data: bytes) -> int:
        nonlocal room
        if len(data) > 64:
            room -= len(data)
        if room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(handle, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InputError, match="the disk is full.*again to go on"):
        apply(origin, tmp_path / "b", STEPS)
    assert not (tmp_path / "b").exists() and not list((tmp_path / ".b.regauge" / "parts").iterdir())
    monkeypatch.setattr(os, "write", honest)
    apply(origin, tmp_path / "b", STEPS)
    assert contents(tmp_path / "b") == expected


def test_ranks_share_a_job_without_knowing_of_each_other(
    origin: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    target = tmp_path / "b"
    for rank in (2, 0):
        assert apply(origin, target, STEPS, rank=rank, world=3) is None
        assert not target.exists()
    record = apply(origin, target, STEPS, rank=1, world=3)
    assert record is not None and record["verify"]["ok"]
    assert contents(target) == expected
    assert apply(origin, target, STEPS, rank=0, world=3) == record  # late, and told so
    with pytest.raises(InputError, match="--force"):
        apply(origin, target, ["fold"], rank=0, world=3)


def test_another_job_does_not_take_the_place_of_one_at_work(origin: Path, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def other(done: int, total: int) -> None:
        if not errors:
            with pytest.raises(InputError, match="another run with other options") as caught:
                apply(origin, tmp_path / "b", ["fold"])
            errors.append(caught.value)

    apply(origin, tmp_path / "b", STEPS, verify="none", progress=other)
    assert errors
    assert (tmp_path / "b" / "regauge.json").exists()


@pytest.mark.slow
def test_killed_at_random_points(origin: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    target = tmp_path / "b"
    draw = random.Random(0)
    start = time.monotonic()
    assert os.waitpid(forked(origin, tmp_path / "whole"), 0)[1] == 0
    whole = time.monotonic() - start
    partial = 0
    for _ in range(15):
        child = forked(origin, target)
        time.sleep(draw.uniform(0, whole))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if target.exists():
            assert contents(target) == expected
            for path in tmp_path.glob(".b*"):
                assert path.name == ".b.regauge"
            break
        partial += (tmp_path / ".b.regauge").exists()
    assert partial
    if not target.exists():
        assert os.waitpid(forked(origin, target), 0)[1] == 0
    assert contents(target) == expected


@pytest.mark.slow
def test_killed_before_a_step_on_the_disk(origin: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """Every call that writes, renames or removes is a point to die at; the last ones make the result appear."""
    log = tmp_path / "steps"
    assert os.waitpid(forked(origin, tmp_path / "whole", log=log), 0)[1] == 0
    steps = log.read_text().split()
    appears = len(steps) - 1 - steps[::-1].index("rename")
    draw = random.Random(1)
    points = sorted({*draw.sample(range(appears), 3), appears, appears + 1})
    for i, n in enumerate(points):
        target = tmp_path / str(i)
        assert os.waitpid(forked(origin, target, limit=n), 0)[1] == signal.SIGKILL
        assert target.exists() == (n > appears)
        if not target.exists():
            assert os.waitpid(forked(origin, target), 0)[1] == 0
        assert contents(target) == expected


def count_steps(limit: int | None, log: Path | None) -> None:
    """Note every call that changes the disk, and die before the one of this number."""
    done = 0

    def counted(name: str) -> None:
        honest = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            nonlocal done
            if done == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
            if log is not None:
                with log.open("a") as stream:
                    stream.write(f"{name} ")
            return honest(*args, **options)

        setattr(os, name, call)

    for name in ("write", "mkdir", "replace", "rename", "fsync", "unlink", "rmdir", "sendfile"):
        counted(name)


def forked(origin: Path, target: Path, limit: int | None = None, log: Path | None = None) -> int:
    """A process of its own, with everything imported, that applies and ends."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if limit is not None or log is not None:
                count_steps(limit, log)
            apply(origin, target, STEPS)
            code = 0
        finally:
            os._exit(code)
    return child


@pytest.mark.slow
def test_processes(origin: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers; one of them is killed while it writes a file."""
    honest, parts = Images.parts, tmp_path / ".b.regauge" / "parts"

    def slow(self: Images, *args: Any) -> Any:
        time.sleep(0.1)
        return honest(self, *args)

    monkeypatch.setattr(Images, "parts", slow)
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not ended.is_set() and not killed:
            for part in parts.glob("*"):
                killed.append(int(part.name.rsplit("-", 1)[1]))
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        apply(origin, tmp_path / "b", STEPS, workers=2)
    finally:
        ended.set()
        killer.join()
    assert killed and killed[0] != os.getpid() and contents(tmp_path / "b") == expected


@pytest.mark.slow
def test_ray(origin: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers of a real cluster; one of them is killed."""
    ray = pytest.importorskip("ray")
    psutil = pytest.importorskip("psutil")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False)
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not ended.is_set() and not killed:
            for p in psutil.process_iter(["pid", "cmdline", "ppid"]):
                if "ray::write_one" in " ".join(p.info["cmdline"] or []):
                    p.kill()
                    killed.append(p.info["pid"])
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    try:
        killer.start()
        record = apply(origin, tmp_path / "b", STEPS, engine="ray")
    finally:
        ended.set()
        killer.join()
        ray.shutdown()
    assert killed and record is not None and record["verify"]["ok"]
    assert contents(tmp_path / "b") == expected
