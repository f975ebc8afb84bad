"""regauge: the symmetry compiler for neural networks.

`infer` and `Gauge` are made in `regauge.solve`, the proofs in `regauge.check`. They are imported on first use, so that
`import regauge` costs nothing beside torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from regauge import errors

if TYPE_CHECKING:
    from regauge import check
    from regauge.solve import Gauge, infer

__all__ = ["Gauge", "check", "errors", "infer"]

HOMES = {"Gauge": "regauge.solve", "infer": "regauge.solve", "check": "regauge.check"}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'regauge' has no attribute {name!r}")
    home = import_module(HOMES[name])
    return home if HOMES[name] == f"regauge.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
