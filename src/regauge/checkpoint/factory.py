"""`package.module:factory`: a function that returns a module and example inputs."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import torch
from torch import nn

from regauge.checkpoint.opened import Opened, Sample
from regauge.checkpoint.weights import check_finite
from regauge.errors import InputError

WAY_OUT = "let it return (module, args) or (module, args, kwargs)"


def open_factory(spec: str) -> Opened:
    """The model that the function `spec` makes. It is called once per use, so it should be deterministic.

    The function takes nothing and returns `module`, `args` (a tuple, or one tensor) and perhaps `kwargs` (a dict).
    If it has an attribute `small`, a function of the same kind, that one makes the small copy for the proof of
    tightness."""
    function = find_factory(spec)
    small = getattr(function, "small", None)

    def loaded() -> Sample:
        sample = as_sample(call_factory(function, spec), spec)
        check_finite(sample.model.state_dict().items(), spec)
        return sample

    return Opened(
        spec=spec,
        kind="factory",
        skeleton=lambda: as_sample(call_factory(function, spec), spec),
        loaded=loaded,
        small=None if small is None else lambda: as_sample(call_factory(small, f"{spec}.small"), f"{spec}.small"),
    )


def find_factory(spec: str) -> Any:
    module_name, _, path = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        if (
            isinstance(error, ModuleNotFoundError)
            and error.name
            and module_name.split(".")[0] == error.name.split(".")[0]
        ):
            raise InputError(
                f"{spec}: there is no module {error.name}: run from the directory that holds it, or install it"
            ) from None
        raise InputError(
            f"{spec}: importing {module_name} fails with {type(error).__name__}: {error}: import it in Python "
            "to see where"
        ) from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise InputError(f"{spec}: {module_name} has no attribute {path}: check the name after the colon")
        found = getattr(found, name)
    if not callable(found):
        raise InputError(f"{spec}: is a {type(found).__name__}, not a function: {WAY_OUT}")
    return found


def call_factory(function: Any, spec: str) -> Any:
    try:
        return function()
    except Exception as error:
        raise InputError(
            f"{spec}: calling it fails with {type(error).__name__}: {error}: call it in Python to see where"
        ) from error


def as_sample(value: Any, spec: str) -> Sample:
    match value:
        case (nn.Module() as model, args):
            kwargs: Any = {}
        case (nn.Module() as model, args, dict() as kwargs):
            pass
        case nn.Module():
            raise InputError(f"{spec}: returned a module without example inputs: {WAY_OUT}")
        case _:
            raise InputError(f"{spec}: returned a {type(value).__name__}: {WAY_OUT}")
    args = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    return Sample(model.eval(), args, kwargs)
