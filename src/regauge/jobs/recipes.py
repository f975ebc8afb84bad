"""Recipes from files and from options; the matrices that they name, read from files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from regauge.act import Recipe
from regauge.act.rotate import HOW
from regauge.errors import InputError
from regauge.jobs import files

NAMED = ("how", "moments")  # options that may be a tensor
ORDER = ("untie", "fold", "rotate", "balance", "canonical", "random", "prune-redundant")


def from_options(
    *,
    untie: bool = False,
    fold: bool = False,
    rotate: tuple[str, ...] = (),
    balance: str | None = None,
    canonical: bool = False,
    random: int | None = None,
    prune_redundant: bool = False,
    seed: int = 0,
) -> Recipe:
    """The recipe that options of the command line say, in the order: untie, fold, rotate, balance, canonical, random,
    prune-redundant.

    rotate: each `HOW` (of the stream) or `BOND=HOW`, where HOW is hadamard, orthogonal, pca=MOMENTS.npy, or the file of a
    matrix. Raises InputError where nothing is asked for, or a file cannot be read.
    """
    steps: list[Any] = ["untie"] * untie + ["fold"] * fold
    steps += [{"rotate": rotation(text, seed)} for text in rotate]
    steps += [{"balance": {"norm": balance}}] if balance else []
    steps += ["canonical"] * canonical
    steps += [{"random": {"seed": random}}] if random is not None else []
    steps += ["prune-redundant"] * prune_redundant
    if not steps:
        raise InputError(f"nothing to do: give a --recipe, or some of {', '.join('--' + o for o in ORDER)}")
    return with_tensors(steps, Path())


def rotation(text: str, seed: int) -> dict[str, Any]:
    """`HOW`, `BOND=HOW`, `pca=FILE` or `BOND=pca=FILE` as the options of a step."""
    *bond, how = text.split("=")
    if bond[-1:] == ["pca"]:
        return {"bond": "=".join(bond[:-1]) or "stream", "how": "pca", "moments": how}
    return {"bond": "=".join(bond) or "stream", "how": how, "seed": seed}


def from_file(path: Path) -> Recipe:
    """A recipe from a YAML or JSON file; files that it names are taken from its directory."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the path and its permissions") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    return with_tensors(data, path.parent)


def with_tensors(data: Any, folder: Path) -> Recipe:
    """The recipe, with the tensors that its options name as files."""
    tensors: dict[str, Any] = {}
    for options in _options(data):
        for key in NAMED:
            name = options.get(key)
            if not isinstance(name, str) or (key == "how" and name in HOW):
                continue
            if not (folder / name).is_file():
                known = f", and none of {', '.join(HOW)}" if key == "how" else ""
                raise InputError(f"{key}: {folder / name} is no file{known}: check the path")
            tensors[name] = read_tensor(folder / name)
    return Recipe.of(data, tensors)


def digests(recipe: Recipe) -> dict[str, str]:
    """Name -> a digest of each tensor: they decide the result as much as the words do."""
    return {
        name: files.digest_of([[k, t.double().flatten().tolist()] for k, t in (t.items() if isinstance(t, Mapping) else [("", t)])])
        for name, t in recipe.tensors.items()
    }  # fmt: skip


def read_tensor(path: Path) -> Tensor | dict[str, Tensor]:
    """One tensor from a .npy file, or what a .safetensors file holds: a tensor, or several by name."""
    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.load(path, allow_pickle=False))
        held = load_file(path)
    except Exception as error:
        raise InputError(
            f"{path}: is no .npy or .safetensors file ({error}): save the matrix as one of these"
        ) from None
    return next(iter(held.values())) if len(held) == 1 else held


def _options(data: Any) -> Iterator[Mapping[str, Any]]:
    steps = data.get("steps", ()) if isinstance(data, Mapping) else data
    for step in steps if isinstance(steps, list | tuple) else ():
        if isinstance(step, Mapping):
            yield from (o for o in step.values() if isinstance(o, Mapping))
