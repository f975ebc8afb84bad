"""The largest default configurations on the meta device: seconds of CPU and memory from a configuration to its gauge.

Mixtures of experts and latent attention included, each in a process of its own. `python benchmarks/bench_largest.py`,
or with names of types: `... deepseek_v3`. Fails where one takes more than two minutes of CPU or two gigabytes.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from time import process_time

from bench_compiler import timed

LARGEST = ("deepseek_v3", "mixtral", "gpt_oss", "llama4_text", "jamba", "qwen3_moe")
SECONDS, BYTES = 120.0, 2 << 30


def child(name: str) -> None:
    """Trace and infer once; print seconds of CPU and bytes."""
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    import regauge
    from regauge.checkpoint.skeleton import parameters_on_meta
    from regauge.graph.posing import posing_as_cpu

    config = CONFIG_MAPPING[name]()
    config.use_cache = False
    config._experts_implementation = "batched_mm"
    start = process_time()
    with parameters_on_meta():
        cls = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name])
        model = cls._from_config(config, dtype=torch.bfloat16).eval()
    ids = torch.arange(55).reshape(5, 11)
    tracing = [0.0]
    torch.export.export = timed(torch.export.export, tracing)
    program = torch.export.ExportedProgram
    program.run_decompositions = timed(program.run_decompositions, tracing)  # type: ignore[method-assign]
    with posing_as_cpu(model):
        gauge = regauge.infer(model, (), {"input_ids": ids}, observe="logits")
    total = process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    count = sum(p.numel() for p in model.parameters())
    layers = getattr(config, "num_hidden_layers", 0)
    print(
        json.dumps(
            {
                "parameters": count,
                "layers": layers,
                "dim": gauge.dim,
                "tracing": tracing[0],
                "total": total,
                "peak": peak,
            }
        )
    )


def main(names: list[str]) -> int:
    worst = 0
    print(
        f"{'type':14} {'parameters':>16} {'layers':>6} {'dimension':>16} {'trace, s':>9} {'total, s':>9} {'peak, GB':>9}"
    )
    for name in names or LARGEST:
        made = subprocess.run([sys.executable, __file__, "--child", name], capture_output=True, text=True)
        if made.returncode:
            print(f"{name:14} failed: {made.stderr.strip().splitlines()[-1][:200]}")
            worst = 1
            continue
        r = json.loads(made.stdout.strip().splitlines()[-1])
        within = r["total"] <= SECONDS and r["peak"] <= BYTES
        worst |= not within
        print(
            f"{name:14} {r['parameters']:16,} {r['layers']:6} {r['dim']:16,} {r['tracing']:9.1f} {r['total']:9.1f} "
            f"{r['peak'] / 2**30:9.2f}{'' if within else '   over the limit'}",
            flush=True,
        )
    return worst


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
