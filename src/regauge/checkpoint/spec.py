"""From the word MODEL of a command line to an `Opened`."""

from __future__ import annotations

import re
from pathlib import Path

from regauge.checkpoint.opened import Opened
from regauge.errors import InputError

FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def open_model(spec: str) -> Opened:
    """Find the model that `spec` names; nothing large is read yet.

    `spec` is a local Hugging Face directory (config.json and safetensors, or one .gguf), the path of a .gguf file, the
    path of a .pt2 program that `torch.export.save` wrote, or `package.module:factory`.
    Raises InputError where there is no such model."""
    path = Path(spec).expanduser()
    if path.suffix == ".pt2" and path.is_file():
        from regauge.checkpoint.program import open_program

        return open_program(path)
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        from regauge.checkpoint.pretrained import open_pretrained

        return open_pretrained(path)
    if FACTORY.fullmatch(spec):
        from regauge.checkpoint.factory import open_factory

        return open_factory(spec)
    if path.is_file():
        raise InputError(
            f"{path}: regauge does not read {path.suffix or 'such'} files: name the directory that holds "
            "config.json, a .gguf or .pt2 file, or package.module:factory"
        )
    hub = (
        f"; a model of a hub is downloaded first: hf download {spec}" if re.fullmatch(r"[\w.-]+/[\w.-]+", spec) else ""
    )
    raise InputError(
        f"{spec}: no such file or directory: name a local Hugging Face directory, a .gguf or .pt2 file, or "
        f"package.module:factory{hub}"
    )
