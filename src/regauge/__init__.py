"""regauge: the symmetry compiler for neural networks.

`infer` reads any PyTorch model and gives its gauge group, a `Gauge`; `check` proves it. What needs torch is imported on first
use, so that `import regauge` costs nothing beside torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from regauge import errors

if TYPE_CHECKING:
    from regauge import check
    from regauge.solve.api import infer
    from regauge.solve.gauge import Gauge

__all__ = ["Gauge", "check", "errors", "infer"]

HOMES = {"Gauge": "regauge.solve.gauge", "infer": "regauge.solve.api", "check": ""}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'regauge' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name) if HOMES[name] else import_module(f"regauge.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
