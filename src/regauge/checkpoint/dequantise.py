"""A GGUF file as a directory of safetensors, which is what can be written back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regauge.checkpoint.pretrained import library, load, locate, quiet, read_config


def gguf_in(path: Path) -> tuple[Path, str] | None:
    """The directory and the name of the GGUF file that `path` means; None if it is another kind of checkpoint."""
    if not path.exists():
        return None
    folder, name = locate(path)
    return None if name is None else (folder, name)


def dequantise(folder: Path, name: str, into: Path) -> None:
    """Write the GGUF file as transformers reads it, with its tokenizer, into an existing directory. Holds the model."""
    transformers = library()
    model, _ = load(read_config(folder, name), folder, name)
    with quiet():
        model.config.use_cache = True
        _without(model.config, "_experts_implementation", "quantization_config")
        model.hf_quantizer = None  # its weights are plain by now
        model.save_pretrained(into)
        try:
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
        except Exception:  # a vocabulary of a kind that the library cannot convert; the weights do not need it
            return
        tokenizer.save_pretrained(into)


def _without(config: Any, *names: str) -> None:
    for part in (config, config.get_text_config()):
        for name in names:
            vars(part).pop(name, None)
