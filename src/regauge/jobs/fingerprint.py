"""`fingerprint`: the sketch of a checkpoint, in a file of fixed length, by reading every tensor once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

import regauge
from regauge.align.sketch import BINS, SAMPLES, WIDTH, Sketch, sketch
from regauge.checkpoint import Sample
from regauge.errors import InputError
from regauge.graph.posing import posing_as_cpu
from regauge.jobs.diff import Side, side
from regauge.solve.gauge import Gauge

MAGIC = b"regauge sketch 1"
HEADER = 1024  # bytes before the numbers
LENGTH = 3  # tokens of each sample
SIZE = HEADER + 4 * BINS * WIDTH

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Fingerprint:
    """A sketch with the class of the model, and the name under which it was made."""

    sketch: Sketch
    model: str
    name: str

    def similarity(self, other: Fingerprint) -> float:
        return self.sketch.similarity(other.sketch)

    def save(self, path: Path) -> None:
        """Write SIZE bytes, beside and renamed."""
        head = json.dumps({"make": self.sketch.make, "model": self.model, "name": self.name[-200:]}).encode()
        beside = path.with_name(f".{path.name}.part")
        beside.write_bytes((MAGIC + head).ljust(HEADER) + self.sketch.values.astype("<f4").tobytes())
        beside.replace(path)


def read_fingerprint(path: Path) -> Fingerprint:
    """Raises InputError where the file is no sketch, or not whole."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the path and its permissions") from None
    if not data.startswith(MAGIC) or len(data) != SIZE:
        raise InputError(f"{path}: is no sketch of {SIZE:,} bytes: make one with `regauge fingerprint MODEL`")
    head = json.loads(data[len(MAGIC) : HEADER])
    values = np.frombuffer(data[HEADER:], "<f4").reshape(BINS, WIDTH).astype(np.float32)
    return Fingerprint(Sketch(values, head["make"]), head["model"], head["name"])


def fingerprint(spec: str | Path, *, unknown: str = "raise", tell: Tell | None = None) -> Fingerprint:
    """The sketch of a model as `open_model` names it; a directory is read tensor by tensor."""
    say = tell or (lambda stage: None)
    say("open")
    found = side(str(spec))
    say("infer")
    gauge, sample = prepared(found, unknown)
    say("read")
    made = sketch(gauge, found.state, make(sample))
    return Fingerprint(made, type(sample.model).__name__, Path(str(spec)).name)


def prepared(found: Side, unknown: str = "raise") -> tuple[Gauge, Sample]:
    """The gauge on a few short inputs, and the sample that has them."""
    sample = found.sample
    if found.opened.kind == "pretrained":
        sample = Sample(sample.model, kwargs=shortened(sample.kwargs), notes=sample.notes)
    with posing_as_cpu(sample.model):
        return regauge.infer(sample.model, sample.args, sample.kwargs, unknown=unknown), sample


def shortened(inputs: dict[str, Any]) -> dict[str, Any]:
    """The first samples of a batch, and of tokens the first few."""

    def few(x: Tensor) -> Tensor:
        return x[:SAMPLES, :LENGTH] if x.ndim == 2 and not x.is_floating_point() else x[:SAMPLES]

    return dict(tree_map_only(Tensor, few, inputs))


def make(sample: Sample) -> str:
    """Which inputs to which class: sketches of one make compare."""
    digest = hashlib.sha256(type(sample.model).__name__.encode())
    for x in tree_leaves((sample.args, sample.kwargs)):
        digest.update(x.detach().cpu().numpy().tobytes() if isinstance(x, Tensor) else repr(x).encode())
    return digest.hexdigest()[:32]
