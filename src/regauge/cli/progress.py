"""What a person sees while waiting: the stage on stderr; and the time and memory that the whole took."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console


class Progress:
    """Names each stage while it runs and keeps its seconds. Silent if `quiet`."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.seconds: dict[str, float] = {}
        self.console = Console(file=sys.stderr, highlight=False)  # the file as it is now: loaders redirect sys.stderr

    @contextmanager
    def stage(self, name: str, doing: str) -> Iterator[None]:
        """Time a block as `name` and say what it is `doing`: a spinner on a terminal, a line elsewhere."""
        start = perf_counter()
        if self.quiet:
            yield
        elif self.console.is_terminal:
            with self.console.status(f"{doing} ..."):
                yield
        else:
            self.console.print(f"{doing} ...")
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
