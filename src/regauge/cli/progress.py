"""What a person sees while waiting: the stage on stderr; and the time and memory that the whole took."""

from __future__ import annotations

import logging
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar


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


class Watch:
    """A stage and a bar of bytes on a terminal, a line for each stage elsewhere, nothing if `quiet`. Keeps the seconds."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(file=sys.stderr, highlight=False)
        self.quiet, self.seconds = quiet, 0.0
        self.said: set[str] = set()
        self.stack = ExitStack()
        self.bar: Bar | None = None

    def __enter__(self) -> Watch:
        self.start = perf_counter()
        self.stack.enter_context(chatter_off())
        if not self.quiet and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                       TimeRemainingColumn())  # fmt: skip
            self.bar = self.stack.enter_context(Bar(*columns, console=self.console, transient=True))
            self.task = self.bar.add_task("reading", total=None)
        return self

    def __exit__(self, *raised: Any) -> None:
        self.seconds = perf_counter() - self.start
        self.stack.close()

    def stage(self, name: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, description=name)
        elif not self.quiet and name not in self.said:
            self.said.add(name)
            self.console.print(f"{name} ...")

    def bytes(self, done: int, total: int) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total)


def ignore(step: str) -> None:
    """Nobody listens."""


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
