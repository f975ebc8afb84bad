"""Which compiler made a record: a digest of the code that decides an answer."""

from __future__ import annotations

import hashlib
from pathlib import Path

import regauge

DECIDES = ("errors.py", "graph", "rules", "solve")


def compiler_digest() -> str:
    """Ten hexadecimal digits of the source files that `regauge.infer` runs, names and contents."""
    root = Path(regauge.__file__).parent
    files = [f for part in DECIDES for f in ((root / part).rglob("*.py") if (root / part).is_dir() else [root / part])]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:10]
