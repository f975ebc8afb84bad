"""Inference time over tracing time, growth with the number of layers, memory, and the cost of the import.

A 70B-like configuration (8192 wide, 64 query and 8 key/value heads) on the meta device, each depth in a process of its
own. `python benchmarks/bench_compiler.py`, or with depths: `... 1 8`."""

from __future__ import annotations

import json
import math
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from time import process_time
from typing import Any

DEPTHS = (1, 8, 32, 80)
IMPORTS = 7
SHAPE = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


def child(layers: int) -> None:
    """Trace and infer once; print seconds of CPU and bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import regauge
    from regauge.checkpoint.skeleton import parameters_on_meta
    from regauge.graph.posing import posing_as_cpu

    config = LlamaConfig(**SHAPE, num_hidden_layers=layers, use_cache=False, dtype="bfloat16")
    with parameters_on_meta():
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()
    ids = torch.arange(55).reshape(5, 11)

    tracing = [0.0]
    torch.export.export = timed(torch.export.export, tracing)
    program = torch.export.ExportedProgram
    program.run_decompositions = timed(program.run_decompositions, tracing)  # type: ignore[method-assign]
    start = process_time()
    with posing_as_cpu(model):
        gauge = regauge.infer(model, (), {"input_ids": ids})
    total = process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"tracing": tracing[0], "inference": total - tracing[0], "peak": peak, "dim": gauge.dim}))


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        start = process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[0] += process_time() - start

    return call


def import_milliseconds() -> float:
    """The median over fresh processes of the seconds that `import regauge` takes after `import torch`."""
    script = "import torch, time; t = time.perf_counter(); import regauge; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout for _ in range(IMPORTS)
    ]
    return 1000 * statistics.median(map(float, runs))


def slope(xs: list[float], ys: list[float]) -> float:
    """The growth exponent: least squares on logarithms."""
    x, y = [math.log(v) for v in xs], [math.log(v) for v in ys]
    mx, my = statistics.fmean(x), statistics.fmean(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def main(depths: list[int]) -> None:
    print(f"import regauge beyond import torch: {import_milliseconds():.1f} ms (aim: at most 50)")
    print("layers   tracing  inference  inference/tracing    total      peak      dimension")
    results = []
    for layers in depths:
        done = subprocess.run([sys.executable, __file__, "--child", str(layers)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        r = json.loads(done.stdout.splitlines()[-1])
        results.append(r)
        ratio, total = r["inference"] / r["tracing"], r["inference"] + r["tracing"]
        print(f"{layers:>6} {r['tracing']:>7.1f} s {r['inference']:>8.1f} s {ratio:>18.2f} {total:>6.1f} s "
              f"{r['peak'] / 2**30:>5.2f} GiB {r['dim']:>14,}", flush=True)  # fmt: skip
    deep = [(n, r) for n, r in zip(depths, results, strict=True) if n > 1]
    if len(deep) > 1:
        xs = [float(n) for n, _ in deep]
        for part in ("tracing", "inference"):
            print(f"growth of {part} with the layers ({deep[0][0]} to {deep[-1][0]}): exponent "
                  f"{slope(xs, [r[part] for _, r in deep]):.2f} (aim: 1.0)")  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]))
    else:
        main([int(n) for n in sys.argv[1:]] or list(DEPTHS))
