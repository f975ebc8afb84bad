"""A gauge-shaped value to print: plain records with the public attributes of a real one, of a 30-layer model."""

from __future__ import annotations

from types import SimpleNamespace as Record


def touch(parameter: str, axis: int, side: str = "vector") -> Record:
    return Record(parameter=parameter, axis=axis, side=side)


def gauge(layers: int = 30) -> Record:
    bonds = []
    for i in range(layers):
        path = f"model.layers.{i}"
        bonds += [
            Record(name=f"{path}.mlp", size=1536, group="R* wr S1536", dim=1536,
                   touches=(touch(f"{path}.mlp.up.weight", 0), touch(f"{path}.mlp.down.weight", 1, "dual"))),
            Record(name=f"{path}.attn.v", size=192, group="GL(64) wr S3", dim=12288,
                   touches=(touch(f"{path}.attn.v.weight", 0), touch(f"{path}.attn.o.weight", 1, "dual"))),
        ]  # fmt: skip
    bonds.append(Record(name="residual", size=576, group="1", dim=0, touches=(touch("embed.weight", 1),)))
    obstructions = [
        Record(bond=f"model.layers.{{0..{layers - 1}}}.attn.qk", text="rotary tables mix planes", source="model.py:88",
               cost="", lost=360, count=layers),
        Record(bond="residual", text="one tensor is embedding and head", source="", cost="untie: + 28.3 M parameters",
               lost=165_600, count=1),
    ]  # fmt: skip
    terms = (
        Record(label="scales of gated units", count=30, each=1536, dim=30 * 1536),
        Record(label="values", count=30, each=12288, dim=30 * 12288),
    )
    dim = sum(term.dim for term in terms)
    return Record(dim=dim, bonds=tuple(bonds), terms=terms, obstructions=tuple(obstructions), frozen=())


def inspected() -> dict:
    """What the command would print for it."""
    from regauge.report import describe

    return {
        "schema": 1,
        "command": "inspect",
        "model": {"spec": "path/to/model", "class": "SomeModel", "parameters": 134_515_008},
        "observe": "logits",
        "notes": [],
        "seconds": {"build": 0.5, "infer": 8.25},
        "peak_memory_bytes": 2**30,
        "gauge": describe(gauge()),
    }
