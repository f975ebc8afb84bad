"""The names and shapes that tensors have in files, and those that they have in the model.

transformers renames tensors when it loads them, and joins, splits or transposes some (the experts of a layer become one
tensor). Its own conversions are used in both directions, so that files keep the names and shapes that their users know.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from regauge.errors import InputError


@dataclass(frozen=True)
class Group:
    """Tensors of the files that together make tensors of the model."""

    files: tuple[str, ...]
    params: tuple[str, ...]


@dataclass(frozen=True)
class Naming:
    """plain: name in the files -> name in the model. groups: those that are joined or split. unused: tensors of the files
    that the model has not."""

    plain: dict[str, str]
    groups: tuple[Group, ...] = ()
    unused: tuple[str, ...] = ()
    model: Any = field(default=None, repr=False, compare=False)

    def load(self, group: Group, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's tensors from those of the files."""
        converter, patterns, target = self._converter(group)
        for name in group.files:
            converter.add_tensor(target, name, patterns[name], tensors[name])
        return {n: _only(t) for n, t in self._run(converter, target, group).items()}

    def store(self, group: Group, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the files from the model's."""
        forward, patterns, _ = self._converter(group)
        backward = forward.reverse_transform()
        made: dict[str, Any] = {}
        for name in group.params:
            renamed, pattern = backward.rename_source_key(name)
            made.setdefault(renamed, copy.deepcopy(backward)).add_tensor(renamed, name, pattern, tensors[name])
        out: dict[str, Tensor] = {}
        for target, converter in made.items():
            out.update({n: _only(t) for n, t in self._run(converter, target, group).items()})
        mine: dict[str, list[str]] = {}
        for name in out:
            mine.setdefault(forward.rename_source_key(name)[1], []).append(name)
        theirs: dict[str, list[str]] = {}
        for name in group.files:
            theirs.setdefault(patterns[name], []).append(name)
        if {p: len(n) for p, n in mine.items()} != {p: len(n) for p, n in theirs.items()}:
            raise _unknown(group, "it gives back other tensors than it takes")
        natural = _loading().dot_natural_key
        return {
            original: out[reversed_]
            for p in theirs
            for original, reversed_ in zip(theirs[p], sorted(mine[p], key=natural), strict=True)
        }

    def _converter(self, group: Group) -> tuple[Any, dict[str, str], str]:
        """A fresh converter for a group, the pattern of each file name, and the name that the conversion goes by."""
        renamings, converters, prefix, state = _rules(self.model)
        found = {name: _loading().rename_source_key(name, renamings, converters, prefix, state) for name in group.files}
        target, pattern = found[group.files[0]]
        converter = next(c for c in converters if pattern in c.source_patterns)
        return copy.deepcopy(converter), {name: p for name, (_, p) in found.items()}, target

    def _run(self, converter: Any, target: str, group: Group) -> dict[str, Any]:
        try:
            return dict(converter.convert(target, model=self.model, config=self.model.config))
        except Exception as error:
            raise _unknown(
                group, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from error


def naming(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Naming:
    """How the tensors of files (name -> shape) become those of `model`, a model of transformers on any device.

    Raises InputError where a shape does not fit, or where a tensor of the model is in no file."""
    loading = _loading()
    renamings, converters, prefix, state = _rules(model)
    plain: dict[str, str] = {}
    unused: list[str] = []
    joined: dict[str, list[str]] = {}
    for name in sorted(shapes, key=loading.dot_natural_key):
        renamed, pattern = loading.rename_source_key(name, renamings, converters, prefix, state)
        if renamed not in state and name in state:
            renamed, pattern = loading.rename_source_key(name, [], [], prefix, state)
        if renamed not in state:
            unused.append(name)
        elif pattern is None:
            plain[name] = renamed
        else:
            joined.setdefault(renamed, []).append(name)
    found = Naming(plain, (), tuple(unused), model)
    groups = []
    for files in joined.values():
        bare = Group(tuple(files), ())
        params = found.load(bare, {n: torch.empty(shapes[n], device="meta") for n in files})
        groups.append(Group(bare.files, tuple(sorted(params, key=loading.dot_natural_key))))
        require_shapes(params, state)
    require_shapes({m: torch.empty(shapes[n], device="meta") for n, m in plain.items()}, state)
    return Naming(plain, tuple(groups), tuple(unused), model)


def unchanged(shapes: Mapping[str, tuple[int, ...]], model: Any) -> Naming:
    """The naming of a model whose files use its own names."""
    state = model.state_dict()
    plain = {n: n for n in shapes if n in state}
    require_shapes({n: torch.empty(shapes[n], device="meta") for n in plain}, state)
    return Naming(plain, (), tuple(n for n in shapes if n not in state), model)


def require_shapes(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    wrong = [n for n, t in tensors.items() if n not in state or t.shape != state[n].shape]
    if wrong:
        name = min(wrong)
        wanted = list(state[name].shape) if name in state else "no such tensor"
        raise InputError(
            f"{len(wrong)} tensor(s) do not fit config.json: {name} is {list(tensors[name].shape)} in the file and "
            f"{wanted} in the model: the configuration and the weights are of two models"
        )


def held(naming: Naming) -> Iterable[str]:
    """Every name of the model that the files hold."""
    yield from naming.plain.values()
    for group in naming.groups:
        yield from group.params


def _only(t: Any) -> Tensor:
    return t[0] if isinstance(t, list) else t


def _unknown(group: Group, reason: str) -> InputError:
    return InputError(
        f"{group.files[0]} (and {len(group.files) - 1} more) is converted by transformers on loading in a way that "
        f"cannot be taken back ({reason}): give another version of the checkpoint"
    )


@lru_cache(maxsize=4)
def _rules(model: Any) -> tuple[list[Any], list[Any], str, dict[str, Tensor]]:
    """Renamings, converters, the prefix of the base model, and the state dict of the model."""
    loading = _loading()
    from transformers.conversion_mapping import get_model_conversion_mapping

    rules = get_model_conversion_mapping(model)
    return (
        [r for r in rules if isinstance(r, loading.WeightRenaming)],
        [r for r in rules if isinstance(r, loading.WeightConverter)],
        model.base_model_prefix,
        model.state_dict(),
    )


def _loading() -> Any:
    try:
        from transformers import core_model_loading
    except ImportError:
        raise InputError(
            "the weights of a Hugging Face model are renamed by transformers 5, which is not installed: "
            "pip install 'regauge[hf]'"
        ) from None
    return core_model_loading
