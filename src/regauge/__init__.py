"""regauge: the symmetry compiler for neural networks.

`infer` and `Gauge` are made in `regauge.infer`, the proofs in `regauge.check`. They are imported on first use, so that
`import regauge` costs nothing beside torch."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from regauge import errors

if TYPE_CHECKING:
    from regauge import check
    from regauge.infer import Gauge, infer

__all__ = ["Gauge", "check", "errors", "infer"]

HOMES = {"Gauge": "regauge.infer", "infer": "regauge.infer", "check": "regauge.check"}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'regauge' has no attribute {name!r}")
    home = import_module(HOMES[name])
    return home if HOMES[name] == f"regauge.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class Package(ModuleType):
    """`regauge.infer` is a package and the verb that users call: importing the first must not hide the second."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "infer" and isinstance(value, ModuleType):
            value.__class__ = type("Verb", (ModuleType,), {"__call__": staticmethod(value.infer)})
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package
