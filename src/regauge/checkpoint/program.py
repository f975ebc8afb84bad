"""`.pt2` files: programs that torch.export saved, weights and example inputs included."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import torch

from regauge.checkpoint.opened import Opened, Sample
from regauge.checkpoint.weights import check_finite
from regauge.errors import InputError


def open_program(path: Path) -> Opened:
    """The program in a .pt2 file. It has no small copy: its shapes are fixed."""

    @cache
    def sample() -> Sample:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(path)
        except Exception as error:
            reason = str(error).split("\n")[0] or type(error).__name__
            raise InputError(
                f"{path}: is no exported program that this torch {torch.__version__} can read ({reason}): "
                "save it again with torch.export.save"
            ) from error
        if program.example_inputs is None:
            raise InputError(
                f"{path}: was saved without example inputs: export it again with torch.export.export, which "
                "records them"
            )
        args, kwargs = program.example_inputs
        return Sample(program.module(), tuple(args), dict(kwargs))

    def loaded() -> Sample:
        found = sample()
        check_finite(found.model.state_dict().items(), str(path))
        return found

    return Opened(spec=str(path), kind="program", skeleton=sample, loaded=loaded)
