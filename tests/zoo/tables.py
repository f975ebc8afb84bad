"""Tables that are stored one behind the other in one parameter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.registry import Call, add, tokens


class Hashed(nn.Module):
    """Rows of one table, chosen by numbers that are made from each token and the one before it, added and read."""

    def __init__(self, rows: int, *numbers) -> None:
        super().__init__()
        self.numbers, self.table, self.reader = numbers, nn.Embedding(rows, 4), nn.Linear(4, 7, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        before = nn.functional.pad(ids, (1, 0))[:, :-1]
        return self.reader(torch.tanh(sum(self.table(n(ids, before)) for n in self.numbers)))


def add_hashed(name: str, dim: int, rows: int, *numbers, why: str) -> None:
    add(name, dim, lambda: Call(Hashed(rows, *numbers), (tokens(13, 5, 23),)), why=why)


add_hashed(
    "tables-in-one",
    2 * 4,
    15,
    lambda a, b: a % 5,
    lambda a, b: (b - 100) % 5 + 5,
    lambda a, b: (1_000_003 * a + b) % 5 + 10,
    why="what two parts give the third takes",
)
add_hashed(
    "tables-in-one-that-overlap",
    0,
    8,
    lambda a, b: a % 5,
    lambda a, b: (a + b) % 5 + 3,
    why="rows that two readers choose from are in both",
)
add_hashed(
    "tables-in-one-unbounded",
    0,
    10,
    lambda a, b: a % 5,
    lambda a, b: torch.where((a + b) % 2 == 0, (a + b) % 5, (a + b) % 5 + 5),
    why="a reader of all rows",
)

add_hashed(
    "rows-between",
    27 * 4,
    40,
    lambda a, b: torch.where(a > 3, 3 * (b % 12), 1),
    lambda a, b: 3 * (a % 3),
    why="of all rows thirteen are read, whatever the tokens are",
)


class Stacked(nn.Module):
    """A stack of matrices of which some are read, each on its own, and a stack of others behind a relu."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Parameter(torch.zeros(5, 3, 4)), nn.Parameter(torch.zeros(2, 3, 6))

    def forward(self, x: Tensor) -> Tensor:
        units = torch.relu(torch.einsum("bd,end->ben", x, self.enter[1:3]))
        return torch.tanh(torch.einsum("ben,enk->bek", units, self.leave)).flatten(1)


add(
    "stack-in-part",
    2 * 3 + 3 * 3 * 4,
    lambda: Call(Stacked(), (torch.randn(23, 4),)),
    why="each unit of each matrix that is read has a scale of its own, and those that are not read are free",
)


class Sorted(nn.Module):
    """Vectors put into an order that the input tells, between two linear maps."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.enter, self.leave, self.whole = nn.Linear(5, 4, bias=False), nn.Linear(4, 6, bias=False), whole

    def forward(self, x: Tensor) -> Tensor:
        order = x[..., :1].argsort(1).expand(-1, -1, 4) if self.whole else x[..., :4].argsort(1)
        return torch.tanh(self.leave(self.enter(x).gather(1, order)))


add("sorted-vectors", 4 * 4, lambda: Call(Sorted(True), (torch.randn(23, 7, 5),)), why="vectors are taken whole: GL(4)")
add(
    "sorted-entries", 4, lambda: Call(Sorted(False), (torch.randn(23, 7, 5),)), why="each entry has an order of its own"
)


class Normed(nn.Module):
    """Rows of a table behind a norm, each added to the one before it, bent and read."""

    def __init__(self, norm: nn.Module, seen=lambda z, m: z) -> None:
        super().__init__()
        self.table, self.norm, self.seen = nn.Embedding(13, 4), norm, seen
        self.reader = nn.Linear(4, 7, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        y = self.norm(self.table(ids))
        z = self.seen(y + nn.functional.pad(y, (0, 0, 1, 0))[:, :-1], self)
        return self.reader(torch.tanh(z))


def centred(z: Tensor, m: Normed) -> Tensor:
    return z - z.mean(-1, keepdim=True)


def add_normed(name: str, dim: int, norm, seen=lambda z, m: z, *, why: str) -> None:
    add(f"table-behind-a-norm-{name}", dim, lambda: Call(Normed(norm(), seen), (tokens(13, 5, 23),)), why=why)


add_normed(
    "rms", 4, lambda: nn.RMSNorm(4, eps=1e-2), why="the norm can be inverted, so that the table takes up its gain"
)
add_normed("exact", 13, lambda: nn.RMSNorm(4, eps=0.0), why="only lengths of rows are lost, and no gain is taken up")
add_normed(
    "layer",
    13 + 1 + 3,
    lambda: nn.LayerNorm(4, eps=1e-2),
    why="means; the size of the gain, and shifts that stay centred",
)
add_normed(
    "layer-centred",
    13 + 1 + 4 + 3,
    lambda: nn.LayerNorm(4, eps=1e-2),
    centred,
    why="where no mean is seen all of the gain",
)
add_normed(
    "read-twice",
    0,
    lambda: nn.RMSNorm(4, eps=1e-2),
    lambda z, m: z + m.table.weight[:1],
    why="a table that is read elsewhere stays",
)
add_normed("gain-twice", 0, lambda: nn.RMSNorm(4, eps=1e-2), lambda z, m: z + m.norm.weight, why="and so does a gain")
