"""Results in the format of llama.cpp: transformers' reader computes the same from them, and so does llama.cpp itself where
its Python binding is installed (`pip install llama-cpp-python`)."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from as_gguf import write
from models import save
from torch import Tensor

from regauge.jobs.apply import apply

STEPS = ["untie", "fold", {"rotate": {"bond": "stream"}}, {"rotate": {"bond": "heads", "how": "orthogonal"}}]
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
         "vocab_size": 259, "max_position_embeddings": 64, "tie_word_embeddings": True, "bos_token_id": 1,
         "eos_token_id": 2}  # fmt: skip
IDS = [5, 40, 71, 12, 88, 200, 31, 7, 150, 99, 64, 3]


def by_transformers(folder: Path, file: str | None = None) -> np.ndarray:
    from transformers import AutoModelForCausalLM

    from regauge.checkpoint.pretrained import quiet

    with quiet(), torch.no_grad():
        extra = {} if file is None else {"gguf_file": file}
        found: Tensor = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **extra)(
            torch.tensor([IDS])
        ).logits
    return found[0].numpy()


def by_llama_cpp(path: Path, ids: list[int]) -> np.ndarray:
    import llama_cpp

    wanted: dict[str, Any] = {"n_ctx": 64, "n_threads": 1, "logits_all": True, "verbose": False}
    wide = {
        k: 0 for k in ("type_k", "type_v") if k in signature(llama_cpp.Llama.__init__).parameters
    }  # 0: single precision
    model = llama_cpp.Llama(str(path), **wanted, **wide)
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("gguf")
    save("llama", root / "a", **SIZES)
    apply(root / "a", root / "b", STEPS, verify="none")
    return root / "a", root / "b"


def test_the_reader_of_transformers(folders: tuple[Path, Path]) -> None:
    pytest.importorskip("gguf")
    before, after = folders
    file = write(after, after.parent / "after.gguf").name
    assert distance(by_transformers(after.parent, file), by_transformers(before)) < 1e-5


@pytest.mark.slow
def test_llama_cpp(folders: tuple[Path, Path]) -> None:
    pytest.importorskip("llama_cpp")
    before, after = folders
    old, new = (by_llama_cpp(write(f, f.parent / f"{f.name}.gguf"), IDS) for f in folders)
    assert (
        distance(old, by_transformers(before)) < 1e-2
    )  # both read the file alike (llama.cpp rounds products to 16 bits)
    assert distance(new, old) < 1e-2


@pytest.mark.slow
def test_llama_cpp_on_a_real_model(tmp_path: Path) -> None:
    """SmolLM2 untied, folded and rotated: as many bits of perplexity as before."""
    pytest.importorskip("llama_cpp")
    origin = Path(".venv/models/smollm2")
    if not origin.is_dir():
        pytest.skip("the model is not there: make setup")
    (like,) = origin.glob("*.gguf")
    ids = [504, 20001, 282, 253, 20001, 1200, 314, 260, 2068, 282, 260, 905, 351, 253, 1528, 30, 504, 6366, 282, 260]
    losses, logits = [], []
    for name, steps in (("a", []), ("b", ["untie", "fold", {"rotate": {"bond": "stream"}}])):
        apply(origin, tmp_path / name, steps, verify="none")
        found = by_llama_cpp(write(tmp_path / name, tmp_path / f"{name}.gguf", like), ids)
        wide = torch.from_numpy(found).double().log_softmax(-1)
        losses.append(float(-wide[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].mean()))
        logits.append(found)
    assert losses[0] < 8  # it is a language model
    assert losses[1] == pytest.approx(losses[0], abs=2e-2)
    assert distance(logits[1], logits[0]) < 2e-2
