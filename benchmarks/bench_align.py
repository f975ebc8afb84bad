"""`fingerprint` against a plain read of the same files, and `diff`'s alignment against the same read: ratios of one run.

    python benchmarks/bench_align.py [MODEL | large]

MODEL: a directory with safetensors. Without one, a model with the shapes of a small language model (163 million
parameters, untied) is made in a temporary directory, in bfloat16; `large`: one of 0.9 billion parameters, where the small
operations of a forward pass count for less beside the weights.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import torch

from regauge.align.sketch import SAMPLES, sketch
from regauge.jobs.diff import side
from regauge.jobs.fingerprint import LENGTH, make, prepared

REPEATS = 5
WIDE = 2048  # entries of a vector


SMALL = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
         "num_key_value_heads": 3}  # fmt: skip
LARGE = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 16, "num_attention_heads": 16,
         "num_key_value_heads": 4}  # fmt: skip


def made(folder: Path, shape: dict[str, int] = SMALL) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=49152, tie_word_embeddings=False, max_position_embeddings=2048, **shape)
    config.dtype = torch.bfloat16
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    return folder


def plain_read(folder: Path) -> int:
    """Every byte of the weights, into memory once."""
    total = 0
    buffer = bytearray(1 << 24)
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb", buffering=0) as stream:
            while n := stream.readinto(buffer):
                total += n
    return total


def read_and_multiply(folder: Path) -> None:
    """Every byte of the weights, as bfloat16, met by as many vectors as the sketch has samples times tokens: what it cannot do
    without, on one processor."""
    buffer = torch.empty(1 << 21, dtype=torch.bfloat16)
    view = memoryview(buffer.view(torch.uint8).numpy().data)
    x = torch.randn(SAMPLES * LENGTH, WIDE).bfloat16()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(view):
                torch.mm(x, buffer.view(-1, WIDE).mT)


def read_tensors(state: object) -> None:
    """Every tensor of the state, one after the other."""
    for name in state:  # type: ignore[attr-defined]
        state[name]  # type: ignore[index]


def timed(f: object) -> tuple[float, float]:
    """Seconds, and seconds of processor time; the best of a few."""
    walls, works = [], []
    for _ in range(REPEATS):
        start, began = perf_counter(), process_time()
        f()  # type: ignore[operator]
        walls.append(perf_counter() - start)
        works.append(process_time() - began)
    return min(walls), min(works)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        which = sys.argv[1] if len(sys.argv) > 1 else "small"
        shapes = {"small": SMALL, "large": LARGE}
        folder = made(Path(scratch), shapes[which]) if which in shapes else Path(which)
        size = plain_read(folder)
        found = side(str(folder))
        start = perf_counter()
        gauge, sample = prepared(found)
        infer = perf_counter() - start
        name = make(sample)
        read = timed(lambda: plain_read(folder))
        multiplied = timed(lambda: read_and_multiply(folder))
        tensors = timed(lambda: read_tensors(found.state))
        sketched = timed(lambda: sketch(gauge, found.state, name))
        print(f"weights                          {size / 1e6:8.0f} MB")
        for what, (wall, work) in (
            ("plain read (page cache)", read),
            ("every tensor read", tensors),
            ("read and multiplied", multiplied),
            ("sketch", sketched),
        ):
            print(f"{what:32} {wall:8.2f} s {wall / read[0]:6.1f} x    processor {work:8.2f} s {work / read[1]:6.1f} x")
        print(f"tracing and inferring, once      {infer:8.2f} s")


if __name__ == "__main__":
    main()
