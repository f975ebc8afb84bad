"""`regauge apply` against a plain copy of the same files, on a synthetic bfloat16 checkpoint; and its memory at 7B.

    python benchmarks/bench_apply.py            ratios, on half a GB
    python benchmarks/bench_apply.py --large    fold and rotate a 7B-shaped checkpoint (14 GB): peak memory

Each time is the least of three, one after another; in brackets the same ratio in seconds of the processor (of all threads
and worker processes), which other work on the machine disturbs less. The copy reads and writes the same files through one
buffer; `apply` reads, computes, writes, and takes the sha256 of what it reads and of what it writes, which stands in the
record. The job is prepared beforehand: inference does not grow with the weights, and is printed apart.

Three copies to compare with: one that ends in the system's memory, as fast as memory is; the same and the two hashes, one
after another on one processor, below which nothing can be that takes them; and one that ends on the disk (fsync), as a
result of `apply` does before it is renamed.

One process already overlaps reading, computing, hashing and writing. What a second one adds is measured on one processor
against two: one worker that is held to one processor, and two workers on two."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

WIDE = 7 * 10**9
SMALL_SHAPE = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 4, "num_attention_heads": 16,
               "num_key_value_heads": 8, "vocab_size": 16000}  # fmt: skip
LARGE_SHAPE = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
               "num_key_value_heads": 32, "vocab_size": 32000}  # fmt: skip
ROUNDS = 3
BLOCK = 1 << 22


def synthetic(folder: Path, shape: dict[str, int], files: int) -> int:
    """A checkpoint of random numbers in this many files, written without holding it. Returns its bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from regauge.checkpoint.skeleton import parameters_on_meta

    config = LlamaConfig(**shape, tie_word_embeddings=False, dtype="bfloat16", architectures=["LlamaForCausalLM"])
    config.save_pretrained(folder)
    with parameters_on_meta():
        named = [(n, tuple(p.shape)) for n, p in LlamaForCausalLM(config).named_parameters()]
    total = 2 * sum(torch.Size(s).numel() for _, s in named)
    parts: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    held = 0
    for name, size in named:
        if held > len(parts) * total / files:
            parts.append([])
        parts[-1].append((name, size))
        held += 2 * torch.Size(size).numel()
    noise = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)) * 0.02
    places = {}
    for i, part in enumerate(parts):
        name = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
        write(folder / name, part, noise)
        places |= {n: name for n, _ in part}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def write(path: Path, part: list[tuple[str, tuple[int, ...]]], noise: torch.Tensor) -> None:
    header: dict[str, Any] = {}
    at = 0
    for name, size in part:
        n = 2 * torch.Size(size).numel()
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for k, (_, size) in enumerate(part):
            gain = 1.0 if len(size) == 1 else 0.0
            rest = torch.Size(size).numel()
            block = (noise.roll(1009 * k) + gain).bfloat16().view(torch.uint8).numpy().tobytes()
            while rest > 0:
                stream.write(block[: 2 * rest])
                rest -= len(block) // 2


def copy(source: Path, target: Path, stored: bool = False) -> None:
    """Read and write, file by file, as plainly as can be. stored: until all is on the disk."""
    target.mkdir()
    buffer = memoryview(bytearray(BLOCK))
    for path in sorted(source.iterdir()):
        with path.open("rb", buffering=0) as old, (target / path.name).open("wb", buffering=0) as new:
            while got := old.readinto(buffer):  # type: ignore[attr-defined]
                new.write(buffer[:got])
            if stored:
                os.fsync(new.fileno())


def hashing(size: int) -> Seconds:
    """sha256 of as many bytes twice, once as read and once as written."""
    block = os.urandom(BLOCK)
    one = least(lambda: hashlib.sha256(block).digest(), rounds=8)
    return Seconds(2 * size / BLOCK * one.wall, 2 * size / BLOCK * one.cpu)


def products(source: Path, sides: dict[str, list[int]]) -> Seconds:
    """Seconds of the bare matrix products of a rotation of the stream, in single precision, on random operands."""
    from regauge.checkpoint.shards import open_shards

    entries = open_shards(source).entries
    total = Seconds(0.0, 0.0)
    done: dict[tuple[Any, ...], Seconds] = {}
    for name, axes in sides.items():
        for axis in axes:
            key = (entries[name].shape, axis)
            if key not in done:
                w, n = torch.randn(entries[name].shape), entries[name].shape[axis]
                q = torch.linalg.qr(torch.randn(n, n)).Q
                done[key] = least(lambda w=w, q=q, axis=axis: q @ w if axis == 0 else w @ q)  # type: ignore[misc]
            total = total + done[key]
    return total


@dataclass(frozen=True)
class Seconds:
    """Of the clock and of the processor."""

    wall: float
    cpu: float

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def over(self, other: Seconds) -> str:
        return f"{self.wall / other.wall:5.2f} [{self.cpu / other.cpu:5.2f}]"


def least(call: Callable[[], Any], rounds: int = ROUNDS, clear: Callable[[], None] | None = None) -> Seconds:
    wall, cpu = [], []
    for _ in range(rounds):
        if clear is not None:
            clear()
        start, busy = perf_counter(), processor()
        call()
        wall.append(perf_counter() - start)
        cpu.append(processor() - busy)
    return Seconds(min(wall), min(cpu))


def processor() -> float:
    """Seconds of the processor so far: all threads, and the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


class Bench:
    """One prepared job, whose files are written again and again."""

    def __init__(self, source: Path, folder: Path, choose: Any) -> None:
        from regauge.act import Recipe
        from regauge.jobs.job import Settings, prepare

        recipe = Recipe.of([])
        start = perf_counter()
        self.job = prepare(source, folder, Settings(recipe.plain(), shard_size=WIDE), choose)
        self.prepared = perf_counter() - start

    def clear(self) -> None:
        for name in ("done", "result"):
            shutil.rmtree(self.job.home / name)
            (self.job.home / name).mkdir()

    def seconds(self, workers: int = 1, processors: int | None = None, stored: bool = False) -> Seconds:
        """stored: until all is on the disk."""
        from regauge.jobs.apply import write

        indices = list(range(len(self.job.files)))

        def run() -> None:
            write(self.job, indices, None, "local", workers)
            for path in self.job.result.iterdir() if stored else ():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())

        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(mine)[:processors])
        try:
            return least(run, clear=self.clear)
        finally:
            os.sched_setaffinity(0, mine)


def choices() -> Iterator[tuple[str, Any]]:
    from regauge.act import fold, rotate
    from regauge.solve import sampling
    from regauge.solve.element import Element

    def light(gauge: Any, state: Any) -> Any:
        rng = torch.Generator().manual_seed(0)
        moves = (sampling.scale(gauge.plan, rng), sampling.permute(gauge.plan, rng))
        return Element(gauge.plan, moves) @ fold(gauge, state)

    yield "fold, scales, permutations", light
    yield "rotate (dense)", lambda gauge, state: rotate(gauge, state, "stream", "orthogonal")
    yield "rotate (Hadamard)", lambda gauge, state: rotate(gauge, state, "stream", "hadamard")


def ratios(folder: Path) -> None:
    source = folder / "in"
    source.mkdir()
    size = synthetic(source, SMALL_SHAPE, 4)
    copied = folder / "copy"

    def clear() -> None:
        shutil.rmtree(copied, ignore_errors=True)

    copying, storing = (
        least(lambda stored=stored: copy(source, copied, stored), clear=clear) for stored in (False, True)
    )  # type: ignore[misc]
    clear()
    sha = hashing(size)
    print(
        f"{size / 1e9:.2f} GB in 4 files, bfloat16; plain copy {copying.wall:.2f} s [{copying.cpu:.2f}], until it is on the disk "
        f"{storing.wall:.2f} s; sha256 of input and output alone {sha.over(copying)} x copy ({2 * size / sha.cpu / 1e9:.2f} GB/s), "
        f"so copy and hashes on one processor {(copying + sha).over(copying)}, on two at least half of that"
    )
    for k, (name, choose) in enumerate(choices()):
        bench = Bench(source, folder / f"out{k}", choose)
        one = bench.seconds()
        line = f"{name:28} {one.wall:6.2f} s   {one.over(copying)} x copy"
        if "dense" in name:
            stream = max((b for b in bench.job.gauge.bonds if str(b.group).startswith("O(")), key=lambda b: b.size)
            sides: dict[str, list[int]] = {}
            for t in stream.touches:
                if len(bench.job.gauge.parameters[t.parameter]) == 2:
                    sides.setdefault(t.parameter, []).append(t.axis)
            bare = products(source, sides)
            line += f"   bare products {bare.wall:.2f} s: {one.over(copying + bare)} x (copy + products)  (aim: 1.2)"
        elif k == 0:
            line += f"  (aim: 1.3);   {one.over(copying + sha)} x copy and hashes"
            line += f";   on the disk {bench.seconds(stored=True).wall / storing.wall:.2f} x copy on the disk"
        print(f"{line}   [prepared in {bench.prepared:.1f} s]", flush=True)
        if k < 2:
            two, alone = bench.seconds(workers=2, processors=2), bench.seconds(processors=1)
            print(
                f"{'':28} {two.wall:6.2f} s with 2 workers on 2 processors, {alone.wall:.2f} s with one on one: "
                f"{alone.wall / two.wall:.2f} x faster  (aim: 1.7); than one worker on all: {one.wall / two.wall:.2f}",
                flush=True,
            )
        shutil.rmtree(bench.job.home)


def large(folder: Path, layers: int) -> None:
    source = folder / "in"
    source.mkdir()
    size = synthetic(source, {**LARGE_SHAPE, "num_hidden_layers": layers}, 6)
    print(f"{size / 1e9:.1f} GB, 7B-shaped, {layers} layers, bfloat16", flush=True)
    command = [sys.executable, "-c", "from regauge.cli.app import main; main()", "apply", str(source), str(folder / "out"),
               "--fold", "--rotate", "hadamard", "--verify", "none", "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    result = json.loads(done.stdout)
    print(
        f"fold and rotate: {result['seconds']['total']:.0f} s, peak resident {result['peak_memory_bytes'] / 1e9:.2f} GB (aim: 3)"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--layers", type=int, default=32, help="of the 7B shape; fewer where the disk is small")
    parser.add_argument("--folder", type=Path, help="where the files go; by default the system's temporary directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        large(Path(name), options.layers) if options.large else ratios(Path(name))


if __name__ == "__main__":
    main()
