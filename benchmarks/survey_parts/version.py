"""What a record stands on: digests of the compiler that made it, and of the copies whose Jacobians were measured."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from torch.utils._pytree import tree_leaves

import regauge

if TYPE_CHECKING:
    from .build import Subject

DECIDES = ("errors.py", "graph", "rules", "solve")
MEASURES = ("nullity.py", "rank.py", "replace.py", "prove.py", "tape.py")


def compiler_digest() -> str:
    """Ten hexadecimal digits of the source files that `regauge.infer` runs, names and contents."""
    root = Path(regauge.__file__).parent
    digest = hashlib.sha256()
    for part in DECIDES:
        files = sorted((root / part).rglob("*.py")) if (root / part).is_dir() else [root / part]
        for file in files:
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:10]


def subject_digest(subject: Subject) -> str:
    """Ten hexadecimal digits of a model's class, values and inputs, and of the code that measures its nullity."""
    digest = hashlib.sha256(f"{type(subject.model)} {torch.__version__} {transformers.__version__}".encode())
    for name in MEASURES:
        digest.update((Path(__file__).parent / name).read_bytes())
    values = [*subject.model.state_dict().items(), *enumerate(tree_leaves((subject.args, subject.kwargs)))]
    for name, value in values:
        digest.update(f"{name} {getattr(value, 'shape', value)}\0".encode())
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:10]
