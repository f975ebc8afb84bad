"""What a job reads: the model without memory, the state under the model's names, and what untying adds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from regauge.act.untie import TIES
from regauge.act.untie import USUAL as TIE
from regauge.checkpoint.lazy import LazyState, require_all
from regauge.checkpoint.naming import Naming, held, naming, unchanged
from regauge.checkpoint.opened import Sample
from regauge.checkpoint.shards import COMPUTED, Shards, open_shards
from regauge.checkpoint.spec import open_model
from regauge.checkpoint.weights import read_json
from regauge.errors import InputError
from regauge.jobs import files


@dataclass(frozen=True)
class Patch:
    """One entry of config.json that changes: the keys that lead to it, its old value (None: it was not there), the new."""

    path: tuple[str | int, ...]
    old: Any
    new: Any


@dataclass(frozen=True)
class Origin:
    """A checkpoint with its model. added: file name of a tensor that the result has and the input has not -> the file
    tensor that it is a copy of."""

    sample: Sample
    state: Untied
    config: dict[str, Any]
    patches: tuple[Patch, ...]
    added: dict[str, str]


class Untied(Mapping[str, Tensor]):
    """The state of the model, in which some tensors are copies of others."""

    def __init__(self, lazy: LazyState, copies: Mapping[str, str]) -> None:
        self.lazy, self.copies = lazy, dict(copies)

    def __getitem__(self, name: str) -> Tensor:
        return self.lazy[self.copies.get(name, name)]

    def rows(self, name: str, first: int, last: int, into: Tensor | None = None) -> Tensor:
        return self.lazy.rows(self.copies.get(name, name), first, last, into)

    def __contains__(self, name: object) -> bool:
        return name in self.copies or name in self.lazy

    def __iter__(self) -> Iterator[str]:
        return iter((*self.lazy, *self.copies))

    def __len__(self) -> int:
        return len(self.lazy) + len(self.copies)


def open_origin(folder: Path, scratch: Path, untie: bool, keep_unused: bool, model: str | None = None) -> Origin:
    """Open a directory; `scratch` takes a patched config.json where there is one. model: a factory or a program that says
    what the tensors are, under its own names, where no config.json does.

    Raises InputError where the files are not whole, the weights are quantised, or hold tensors that the model has not."""
    config = {} if model else read_json(folder / "config.json")
    if "quantization_config" in config:
        raise InputError(
            f"{folder}: its weights are quantised ({config['quantization_config'].get('quant_method', 'some method')}): "
            "change the gauge of the checkpoint that it was made from, and quantise the result"
        )
    shards = open_shards(folder)
    sample = open_model(model).skeleton() if model else skeleton(folder, folder)
    patches: tuple[Patch, ...] = ()
    copies: dict[str, str] = {}
    if untie and model:
        raise InputError(f"{model}: has no config.json in which a tie could be lifted: untie it in the module")
    if untie:
        tied = names_of(sample.model)
        sample, config, patches = untied(folder, scratch, config, tied)
        have = set(held(naming(sample.model, {n: e.shape for n, e in shards.entries.items()})))
        for own in names_of(sample.model):
            if not set(own) & have:
                group = next((g for g in tied if own[0] in g), ())
                source = next((n for n in group if n in have), None)
                if source is not None:
                    copies[own[0]] = source
    names = naming_of(shards, sample.model, model)
    require_all(folder, sample.model, {*held(names), *copies})
    require_known(folder, shards, names.unused, keep_unused)
    lazy = LazyState(shards, names)
    for name in lazy:
        if lazy.stored_dtype(name).is_floating_point and name in lazy.files:
            dtype = shards.entries[lazy.files[name]].dtype
            if dtype not in COMPUTED:
                raise InputError(f"{folder}: {name} is stored as {dtype}: take the checkpoint before it was quantised")
    require_ties(folder, lazy, sample.model)
    return Origin(sample, Untied(lazy, copies), config, patches, {new: lazy.files[old] for new, old in copies.items()})


def naming_of(shards: Shards, model: Any, spec: str | None) -> Naming:
    """How the tensors of files become those of the model. spec: of a model that is not transformers'."""
    shapes = {n: e.shape for n, e in shards.entries.items()}
    return unchanged(shapes, model) if spec else naming(model, shapes)


def skeleton(folder: Path, configured: Path) -> Sample:
    """The model without memory for its parameters, of the config.json in `configured`, with example inputs."""
    from regauge.checkpoint.inputs import example_inputs
    from regauge.checkpoint.pretrained import build, quiet, read_config
    from regauge.checkpoint.skeleton import parameters_on_meta

    with quiet(), parameters_on_meta():
        model = build(read_config(configured, None), folder)
    return Sample(model, kwargs=example_inputs(model, folder))


def names_of(model: Any) -> list[tuple[str, ...]]:
    """Every parameter with all its names."""
    found: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(p), []).append(name)
    return [tuple(names) for names in found.values()]


def untied(
    folder: Path, scratch: Path, config: dict[str, Any], tied: list[tuple[str, ...]]
) -> tuple[Sample, dict[str, Any], tuple[Patch, ...]]:
    """The model with fewer ties, its configuration, and what was changed in it: the entry that says so, wherever it
    stands; and where that is not enough, in every part that describes a model."""
    scratch.mkdir(exist_ok=True)
    for everywhere in (False, True):
        changed, patches = patch_ties(config, everywhere)
        files.write_json(scratch / "config.json", changed)
        sample = skeleton(folder, scratch)
        if len(names_of(sample.model)) > len(tied):
            return sample, changed, patches
    what = "has no tied tensors" if all(len(n) == 1 for n in tied) else f"stays tied whatever {TIE} says"
    raise InputError(f"{folder}: {type(sample.model).__name__} {what}: leave out --untie")


def patch_ties(config: dict[str, Any], everywhere: bool) -> tuple[dict[str, Any], tuple[Patch, ...]]:
    patches: list[Patch] = []

    def go(node: Any, path: tuple[str, ...]) -> Any:
        if not isinstance(node, dict):
            return node
        out = {k: go(v, (*path, k)) for k, v in node.items()}
        described = not path or (everywhere and "model_type" in node)
        said = [k for k, v in node.items() if v is True and TIES.search(k)]  # under this name or another
        for key in [*said, *([TIE] if described and TIE not in node else [])]:
            patches.append(Patch((*path, key), node.get(key), False))
            out[key] = False
        return out

    return go(config, ()), tuple(patches)


def patched(config: dict[str, Any], patches: Iterable[Patch]) -> dict[str, Any]:
    """The configuration with the patches; everything else as it was, in its order."""
    config = json.loads(json.dumps(config))
    for p in patches:
        node: Any = config
        for key in p.path[:-1]:
            node = node[key]
        if p.new is None:
            node.pop(p.path[-1], None)
        else:
            node[p.path[-1]] = p.new
    return config


def require_known(folder: Path, shards: Shards, unused: tuple[str, ...], keep: bool) -> None:
    """Matrices that the model does not read may belong to a head that reads what is about to be turned."""
    odd = [n for n in unused if shards.entries[n].dtype in COMPUTED and len(shards.entries[n].shape) > 1]
    if odd and not keep:
        raise InputError(
            f"{folder}: {len(odd)} tensor(s) of the files are not part of the model, the first is {odd[0]}: name the class "
            "that reads them in config.json (architectures), or copy them as they are with --keep-unused"
        )


def require_ties(folder: Path, lazy: LazyState, model: Any) -> None:
    """Tied tensors that the files hold twice must be the same twice."""
    import torch

    for names in names_of(model):
        have = [n for n in names if n in lazy]
        for other in have[1:]:
            if not torch.equal(lazy[have[0]], lazy[other]):
                raise InputError(
                    f"{folder}: {have[0]} and {other} are one tensor of the model, and the files hold two different ones: "
                    f"set {TIE} in config.json to what the weights are"
                )
