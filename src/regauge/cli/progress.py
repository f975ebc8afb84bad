"""What a person sees while waiting: the stage on stderr; and the time and memory that the whole took."""

from __future__ import annotations

import logging
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
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
    def stage(self, name: str, doing: str) -> Iterator[Callable[[str], None]]:
        """Time a block as `name` and say what it is `doing`: a spinner on a terminal, a line elsewhere.

        Gives a function that the block tells its steps to; they show in the spinner."""
        start = perf_counter()
        with chatter_off():
            if self.quiet:
                yield ignore
            elif self.console.is_terminal:
                with self.console.status(f"{doing} ...") as status:
                    yield lambda step: status.update(f"{doing}: {step} ...")
            else:
                self.console.print(f"{doing} ...")
                yield ignore
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


@contextmanager
def chatter_off() -> Iterator[None]:
    """Silence the logs and warnings of the libraries below (torch logs whole tracebacks of what it then raises)."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


def ignore(step: str) -> None:
    """Nobody listens."""


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
