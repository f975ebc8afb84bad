"""Bounds of integers against the integers themselves, on many inputs."""

import pytest
import torch
from torch import Tensor, nn

from regauge.graph.bounds import Reach
from regauge.graph.capture import capture
from regauge.graph.marks import Marked


class Counts(nn.Module):
    """Integers made from tokens in every way that bounds follow, each as a row of a table, so that it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 2)
        self.register_buffer("kinds", torch.tensor([[4, 9, 4, 7, 5]]), persistent=False)

    def counted(self, ids: Tensor) -> list[Tensor]:
        mask = ids.ne(1)
        run = mask.int().cumsum(1).type_as(ids) * mask
        kinds = self.kinds.expand(ids.shape[0], -1).gather(1, (run - 1).maximum(torch.zeros_like(run)))
        both = torch.stack([kinds, 3 * run + 20], 1)
        return [
            run,
            kinds,
            both,
            torch.where(mask, kinds, 30),
            60 - run,
            mask.sum(1).to(ids),
            kinds.masked_fill(mask, 11),
            (7 * ids - 20) % 5 + 30,
        ]

    def forward(self, ids: Tensor) -> Tensor:
        return torch.cat([self.table(n).flatten() for n in self.counted(ids)])


def test_integers_lie_within_their_bounds():
    model, rng = Counts(), torch.Generator().manual_seed(0)
    draws = [torch.randint(0, 4, (3, 5), generator=rng) for _ in range(50)] + [torch.full((3, 5), k) for k in (1, 2)]
    captured = capture(model, (draws[0],), None)
    reach = Reach(captured)
    tables = [n for n in captured.graph.nodes if "embedding" in str(n.target)]
    found = [reach.of(n.args[1]) for n in tables]
    expected = [(0, 5), (4, 9), (4, 35), (4, 30), (55, 60), (0, 5), (4, 11), (30, 34)]
    assert found == expected
    for ids in draws:
        for (low, high), n in zip(expected, model.counted(ids), strict=True):
            assert low <= int(n.min()) and int(n.max()) <= high


def test_few_integers_are_followed_together():
    """Of two places with two kinds each: a number for each pair that differs, and distances where the kinds are the same."""

    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(100, 2)

        def counted(self, ids: Tensor) -> Tensor:
            kinds = torch.where(ids > 1, 5, 2)
            here, there = kinds[:, :, None], kinds[:, None, :]
            near = torch.arange(ids.shape[1]) - torch.arange(ids.shape[1])[:, None] + 20
            return torch.where(here == there, near, 50 + 9 * here - there)

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(self.counted(ids))

    model, rng = Pairs(), torch.Generator().manual_seed(0)
    draws = [torch.randint(0, 4, (3, 4), generator=rng) for _ in range(30)]
    captured = capture(model, (draws[0],), None)
    (table,) = [n for n in captured.graph.nodes if "embedding" in str(n.target)]
    met = {int(x) for ids in draws for x in model.counted(ids).unique()}
    assert Reach(captured).among(table.args[1]) == met == {63, 93, *range(17, 24)}


def test_integers_are_followed_as_their_type_holds_them():
    """A truth is 0 or 1 whatever was cast or added up, and integers that exceed their type wrap around."""

    class Typed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 2)

        def counted(self, ids: Tensor) -> list[Tensor]:
            late, padded = ids > 3, ids == 1
            return [
                torch.where((late * 2).bool() == 1, 5, 0),
                torch.where((late.int() + 1) * 65536 * 65536 == 0, 3, 0),
                torch.where((late.long() + 1) * 2**40 * 2**40 == 0, 3, 0),
                torch.where((late.long() * 2**32 + 2**32).int() == 0, 3, 0),
                (padded + padded).long(),
            ]

        def forward(self, ids: Tensor) -> Tensor:
            return torch.cat([self.table(n).flatten() for n in self.counted(ids)])

    model, ids = Typed(), torch.arange(8).view(2, 4)
    captured = capture(model, (ids,), None)
    reach = Reach(captured)
    marked, tables = Marked(reach), [n.args[1] for n in captured.graph.nodes if "embedding" in str(n.target)]
    for n, counted in zip(tables, model.counted(ids), strict=True):
        met, among, bounds = set(counted.unique().tolist()), reach.among(n), reach.of(n)
        assert among is None or met <= among
        assert bounds is None or bounds[0] <= min(met) and max(met) <= bounds[1]
        assert not met & set(marked.misses(n))


@pytest.mark.parametrize("given", [lambda ids: ids, lambda ids: ids + 1, lambda ids: ids.float().round().long()])
def test_what_may_be_anything_has_no_bounds(given):
    class Looked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(given(ids))

    captured = capture(Looked(), (torch.arange(6).view(2, 3),), None)
    (table,) = [n for n in captured.graph.nodes if "embedding" in str(n.target)]
    assert Reach(captured).of(table.args[1]) is None


def test_a_mark_is_where_its_event_is_and_nowhere_else():
    """Positions that stand still at padding show it; those that are counted on do not, nor those that start below it."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(40, 2)

        def places(self, ids: Tensor) -> list[Tensor]:
            mask = ids.ne(3).int()
            count = mask.cumsum(1).type_as(mask)
            still = (count * mask).long()
            return [ids, still + 3, 9 - still, count.long() + 3, (count * mask - mask).long(), (mask * 2 + 1).long()]

        def forward(self, ids: Tensor) -> Tensor:
            return torch.cat([self.table(n).flatten() for n in self.places(ids)])

    model, rng = Padded(), torch.Generator().manual_seed(0)
    draws = [torch.randint(0, 6, (3, 5), generator=rng) for _ in range(50)]
    captured = capture(model, (draws[0],), None)
    marked = Marked(Reach(captured))
    tables = [n for n in captured.graph.nodes if "embedding" in str(n.target)]
    found = [dict(marked.of(n.args[1])) for n in tables]
    (event,) = found[0]
    assert [f.get(event) for f in found] == [3, 3, 9, None, None, 1]
    for ids in draws:
        for f, places in zip(found, model.places(ids), strict=True):
            assert not f or torch.equal(places == f[event], ids == 3)
