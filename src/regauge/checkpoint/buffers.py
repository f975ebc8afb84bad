"""Memory that is used again: fresh pages cost the system more than copying into them does."""

from __future__ import annotations

import ctypes
from threading import Condition

import torch
from torch import Tensor

from regauge.solve.acts import SMALL

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT = 1 << 28  # bytes that the allocator keeps when they are freed
LARGEST = 1 << 25  # the largest piece that it may keep


class Buffers:
    """Bytes lent to tensors: to `most` at a time, and at most `limit`, or one tensor if it is larger. `take` waits until there
    is room. Threads may share one."""

    def __init__(self, limit: int, most: int) -> None:
        self.limit, self.most = limit, most
        self.free: list[Tensor] = []
        self.lent: dict[int, Tensor] = {}
        self.closed = False
        self.changed = Condition()

    def take(self, size: int) -> Tensor:
        """`size` bytes. Small tensors get memory of their own, which nobody has to give back."""
        if size <= SMALL:
            return torch.empty(size, dtype=torch.uint8)
        with self.changed:
            self.changed.wait_for(lambda: self.closed or not self.lent or self._room(size))
            fit = min((b for b in self.free if b.numel() >= size), key=Tensor.numel, default=None)
            if fit is None:
                self.free.sort(key=Tensor.numel)
                while self.free and self._held() + sum(map(Tensor.numel, self.free)) + size > self.limit:
                    self.free.pop(0)
                fit = torch.empty(size, dtype=torch.uint8)
            else:
                self.free = [b for b in self.free if b is not fit]
            self.lent[fit.data_ptr()] = fit
            return fit[:size]

    def give(self, t: Tensor) -> None:
        """Take back what was lent for this tensor, if it was; its numbers are gone."""
        with self.changed:
            buffer = self.lent.pop(t.untyped_storage().data_ptr(), None)
            if buffer is not None:
                self.free.append(buffer)
                self.changed.notify_all()

    def close(self) -> None:
        """Let whoever waits go on: the work was given up."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def _room(self, size: int) -> bool:
        return len(self.lent) < self.most and self._held() + size <= self.limit

    def _held(self) -> int:
        return sum(map(Tensor.numel, self.lent.values()))


def keep_freed_memory() -> None:
    """Tell the allocator of the C library, where it can be told, to keep freed slabs instead of handing them back to the
    system each time. Bounded: 256 MB for the process."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, KEPT)
