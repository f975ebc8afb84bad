"""Networks in which random search found a wrong answer, made small."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.adversaries import dense
from tests.zoo.registry import Call, add, floats, tokens


class Centred(nn.Module):
    """A stream that is centred before every reader, and never divided by its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(9, 6, bias=False), nn.Linear(6, 9, bias=False)
        self.up, self.down = nn.Linear(6, 7, bias=False), nn.Linear(7, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + self.down(torch.tanh(self.up(x - x.mean(-1, keepdim=True))))
        return self.leave(x - x.mean(-1, keepdim=True))


add(
    "centred-not-divided",
    5 * 5 + (9 + 7) + (7 + 9),
    lambda: dense(Centred(), 9),
    why="GL(5) beside ones; the mean that each writer adds; the row shift of each reader. Scaling the mean is in these",
)


class Reads(nn.Module):
    """A linear layer of which only a function `f` of the result is returned."""

    def __init__(self, f, n: int, d: int) -> None:
        super().__init__()
        self.enter, self.f = nn.Linear(n, d, bias=False), f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.enter(x))


def reads(f, n: int = 4, d: int = 3):
    return lambda: dense(Reads(f, n, d), n)


add(
    "centred-strided",
    6,
    reads(lambda x: nn.functional.layer_norm(x, x.shape[-1:])[..., ::2], 6),
    why="the mean for each input; blocks with one entry along the centred axis were taken for unseen as a whole",
)
add(
    "softmax-strided",
    4,
    reads(lambda x: x.softmax(-1)[..., ::2]),
    why="the row shift; an entry that is left out afterwards was taken for unseen, though the others are divided by it",
)
add("centred-alone-strided", 4, reads(lambda x: (x - x.mean(-1, keepdim=True))[..., ::2]), why="as softmax-strided")
add("mean-alone", 4 * 2, reads(lambda x: x.mean(-1, keepdim=True)), why="Aff(2) for each input, on a vector only")
add("rows-alone", 2 * 4, reads(lambda x: x[..., 2:]), why="two rows that nobody reads, and no SL(2) beside them")


class ColumnAgainstItself(nn.Module):
    """One column of a table, against constants; the other columns are unseen and have no scales beside."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(7, 3))
        self.register_buffer("factors", torch.tensor([1.3, 0.7]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = (x @ self.table)[..., 1:2] * self.factors
        return y / (y * y + 1)


add("columns-unseen", 2 * 7, lambda: dense(ColumnAgainstItself(), 7))


class ThroughOne(nn.Module):
    """A bond of six between maps from and to one entry."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.wide, self.leave = nn.Linear(4, 1), nn.Linear(1, 6, bias=False), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.wide(torch.tanh(self.one(x))))


add(
    "through-one",
    6 + 24 - 4,
    lambda: dense(ThroughOne(), 4),
    why="u v^T with u a vector: all but the product of 4 entries",
)


class SummedTable(nn.Module):
    """Only the sum of each row of a table is read: by a norm of one entry, and as an output."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.leave = nn.Embedding(7, 6), nn.Linear(1, 3)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.table(tokens).mean(-1, keepdim=True)
        return torch.tanh(self.leave(mean)), mean.mean(1, keepdim=True)


add("summed-table", 7 * 5, lambda: Call(SummedTable(), (tokens(7),)), why="six entries for one sum")


class NegatedReader(nn.Module):
    """A known relation is read and its reader's result is scaled by a number: an absorber behind it must undo the factor."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm, self.leave = nn.Linear(9, 6, bias=False), nn.LayerNorm(6), nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return -2 * self.leave(self.norm(self.enter(x)))


add(
    "negated-reader",
    9 + 5 * 4 // 2 + 6 + 6,
    lambda: dense(NegatedReader(), 9),
    why="means, O(d - 1), the norm's gain and shift",
)


class RoutedExperts(nn.Module):
    """Softmax weights of linear experts, then a linear map: the rows of weights sum to one, the experts' inputs do not."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(3, 3, bias=False), nn.Parameter(torch.zeros(3, 3, 3))
        self.leave = nn.Linear(3, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.router(x), -1)
        return self.leave(torch.einsum("...e,eoi,...i->...o", weights, self.experts, x))


add("routed-experts", 3 + 3 * 3, lambda: dense(RoutedExperts(), 3), why="one row for all scores; GL(3)")


class Summed(nn.Module):
    """A parameter to which a product of two others is added before it is read."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.w, self.rank = nn.Parameter(torch.randn(5, 4)), rank
        self.a = nn.Parameter(torch.randn(rank, 5) if rank else torch.randn(5, 4))
        self.b = nn.Parameter(torch.randn(4, rank) if rank else torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ (self.w + ((self.b @ self.a).T if self.rank else self.a * self.b)))


add(
    "sum-with-product-transposed",
    2 * (5 + 4),
    lambda: dense(Summed(2), 5),
    why="both factors are free; they were shifted together, as if their product were linear in the two",
)
add("sum-with-product-entrywise", 2 * 5 * 4, lambda: dense(Summed(0), 5), why="as above, entry by entry")


class Written(nn.Module):
    """A function of parameters with given shapes and of the input."""

    def __init__(self, f, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.f = f
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self, x)


def written(width: int, f, **shapes: tuple[int, ...]):
    return lambda: dense(Written(f, **shapes), width)


linear = nn.functional.linear
add(
    "bias-fills-a-direction",
    4 * 4,
    written(3, lambda m, x: linear(linear(x, m.a, m.b), m.c), a=(4, 3), b=(4,), c=(5, 4)),
    why="three inputs and a bias span all four directions, since no second bias takes the first",
)
add(
    "bias-fills-copies",
    4 * (4 + 1) - 3 * (4 + 1) + 3 * 4 + 3 * 4,
    written(4, lambda m, x: linear(linear(x, m.a, m.b).repeat(1, 2), m.c), a=(4, 4), b=(4,), c=(3, 8)),
    why="a product of rank three of five inputs, and what the two copies of it are read with in opposite",
)


def routed(m: Written, x: Tensor) -> Tensor:
    x = x @ (m.up @ m.down)
    return torch.einsum("be,eoi,bi->bo", torch.softmax(x @ m.router, -1), m.experts, x)


add(
    "router-of-narrow-data",
    2 * 2 + 6 * 2 + (3 + 3 * 3) * (6 - 2) + 2,
    written(5, routed, up=(5, 2), down=(2, 6), router=(6, 3), experts=(3, 3, 6)),
    why="what no data fill, and one row for all scores: the two meet in 6 - 2 directions",
)
add(
    "rows-of-narrow-data",
    2 * 2 + 2 * 6 + 2 * (6 - 2) + 4 * 6,
    written(6, lambda m, x: linear(x @ (m.a @ m.b), m.w)[:, :2], a=(6, 2), b=(2, 6), w=(6, 6)),
    why="rows that nobody reads are not read beyond the rank either",
)
add(
    "experts-span-all",
    3 * 3 + 1,
    written(
        1,
        lambda m, x: torch.einsum("be,eoi,bi->bo", torch.softmax(x @ m.router, -1), m.experts, x) @ m.c + m.d,
        router=(1, 3),
        experts=(3, 3, 1),
        c=(3, 5),
        d=(5,),
    ),
    why="weights that sum to one span all three directions, since they multiply the input and not one",
)
add(
    "scale-of-nothing",
    2 * 16 + 1,
    written(
        4,
        lambda m, x: (
            m.gain * torch.einsum("bi,ij,bj->b", x @ m.a, m.w, x @ m.a)[:, None].var(-1, keepdim=True, unbiased=False)
            + m.shift
        ),
        a=(4, 4),
        w=(4, 4),
        gain=(1,),
        shift=(1,),
    ),
    why="a variance of one entry: nothing but the shift is seen, and no scale beside",
)


class TiedBehindStatistics(nn.Module):
    """A batch norm in evaluation whose bias is read elsewhere too: nothing makes up for a mean that stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4)
        self.train(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.relu(self.enter(x)))
        return torch.cat([x, torch.sin(self.norm.bias).expand_as(x)], -1)


add(
    "batch-norm-tied-bias",
    0,
    lambda: dense(TiedBehindStatistics()),
    why="the mean could follow a scale, no parameter can",
)


class ChosenThenSoftmax(nn.Module):
    """A router that chooses before its softmax: the choice and the softmax of what is chosen see no shift of all rows."""

    def __init__(self, n: int = 5, d: int = 4, f: int = 3, k: int = 2) -> None:
        super().__init__()
        self.router, self.k = nn.Linear(d, n), k
        self.up, self.down = nn.Parameter(torch.zeros(n, f, d)), nn.Parameter(torch.zeros(n, d, f))

    def forward(self, x: Tensor) -> Tensor:
        values, chosen = self.router(x).topk(self.k, -1)
        weights = torch.softmax(values, -1)
        hidden = torch.tanh(torch.einsum("bkfd,bd->bkf", self.up[chosen], x))
        return torch.einsum("bk,bkdf,bkf->bd", weights, self.down[chosen], hidden)


add("chosen-then-softmax", 4 + 1, lambda: dense(ChosenThenSoftmax(), 4), why="the shift of all rows of the router")


class CountedPositions(nn.Module):
    """Positions counted from the tokens, and types read out of a table of zeros at these positions."""

    def __init__(self, v: int = 13, d: int = 5, rows: int = 11, pad: int = 1) -> None:
        super().__init__()
        self.embed, self.positions, self.types = nn.Embedding(v, d), nn.Embedding(rows, d), nn.Embedding(2, d)
        self.out, self.pad = nn.Linear(d, 7), pad
        self.register_buffer("kinds", torch.zeros(1, rows, dtype=torch.long), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        mask = ids.ne(self.pad).int()
        places = (mask.cumsum(1).type_as(mask) * 1).long() + self.pad
        kinds = self.kinds.expand(ids.shape[0], -1).gather(1, places)
        return self.out(torch.tanh(self.embed(ids) + self.types(kinds) + self.positions(places)))


add(
    "counted-positions",
    2 * 5 + 5 + 3 * 5,
    lambda: Call(CountedPositions(), (tokens(13, 5, 7),)),
    why="three tables against one another; a type and 3 of 11 positions that nothing reaches: 1 .. 8 are",
)


class Padded(nn.Module):
    """Positions that stand still at padding, beside the tokens; the table of tokens is tied to the output."""

    def __init__(self, tied: bool, v: int = 13, d: int = 5, rows: int = 9, pad: int = 1) -> None:
        super().__init__()
        self.embed, self.positions, self.pad = nn.Embedding(v, d), nn.Embedding(rows, d), pad
        self.up, self.down, self.norm = nn.Linear(d, 6), nn.Linear(6, d), nn.LayerNorm(d)
        self.out = nn.Linear(d, v)
        if tied:
            self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        mask = ids.ne(self.pad).int()
        places = (mask.cumsum(1).type_as(mask) * mask).long() + self.pad
        x = torch.tanh(self.embed(ids) + self.positions(places))
        x = x + x.mean(1, keepdim=True)
        return self.out(self.norm(x + self.down(torch.tanh(self.up(x)))))


add(
    "padded-positions",
    5 + 5 + 5 + (6 + 1) + (5 + 5) + 13,
    lambda: Call(Padded(tied=False), (tokens(13, 5, 7),)),
    why="tables against one another, and the row of padding against that of its position; a position that nothing reaches; "
    "the mean that is written, gain and shift of the norm, and what every row of the output reads of its relation",
)
add(
    "padded-positions-tied",
    1 + 1 + 5 + (6 + 1) + 5,
    lambda: Call(Padded(tied=True), (tokens(13, 5, 7),)),
    why="the row of padding moves along the covector of the norm's relation alone, so that the output's bias takes it up; and "
    "all rows do so together; a position that nothing reaches, the mean that is written, the shift",
)
add(
    "reader-of-a-constant",
    4 + 3 * 4,
    written(
        2, lambda m, x: linear(m.p[None] + torch.zeros_like(x[:, :1]), m.w, m.b) * x[:, :1], p=(4,), w=(3, 4), b=(3,)
    ),
    why="a vector that a translation takes fills nothing: only three sums are seen",
)


class NarrowIntoNorm(nn.Module):
    """Two directions into a layer norm of six, and two linear maps behind it without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(3, 2, bias=False), nn.Linear(2, 6, bias=False), nn.LayerNorm(6)
        self.c, self.d = nn.Linear(6, 3, bias=False), nn.Linear(3, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.c(self.norm(self.b(self.a(x)))))


add(
    "narrow-into-norm",
    2 * 2 + 2 + (4 + 3) + 6 + 6 + 3 * 3 + 3 * 3,
    lambda: dense(NarrowIntoNorm()),
    why="GL(2), means, O(5) on two directions, gain, shift, GL(3), and what c reads beyond two directions and the shift",
)


def one_of_three(m: Written, x: Tensor) -> Tensor:
    parts = linear(x, m.w).unflatten(-1, (3, 4))
    return torch.tanh(parts[:, :2]).sum((1, 2))[:, None] * linear(parts[:, [2]].flatten(1), m.read)


add(
    "part-at-a-fixed-index",
    4 * 4,
    written(5, one_of_three, w=(12, 5), read=(6, 4)),
    why="a list of one index cuts out a part, as a slice does: GL(4) on it, whatever the other two suffer",
)


def masked_by_a_product(m: Written, x: Tensor) -> Tensor:
    seen = torch.ones(x.shape[1], x.shape[1]).tril()
    scores = linear(x, m.q) @ linear(x, m.k, m.bias).mT
    return torch.softmax(scores * seen + -1e4 * (1 - seen), -1) @ x


add(
    "masked-by-a-product",
    2 * 2 + 2,
    lambda: Call(Written(masked_by_a_product, q=(2, 3), k=(2, 3), bias=(2,)), (floats(5, 4, 3),)),
    why="keys that are masked by a product and a sum are left out all the same: their bias shifts whole rows of scores",
)


class OneThenAnother(nn.Module):
    """The best expert and the best of the others, chosen one after the other and then put side by side."""

    def __init__(self, n: int = 3, d: int = 4, f: int = 3) -> None:
        super().__init__()
        self.router = nn.Linear(d, n)
        self.up, self.down = nn.Parameter(torch.zeros(n, 2, f, d)), nn.Parameter(torch.zeros(n, d, f))

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.sigmoid(self.router(x))
        first, best = scores.max(-1, keepdim=True)
        second, other = scores.scatter(-1, best, 0.0).max(-1, keepdim=True)
        weights, chosen = torch.cat([first, second], -1), torch.cat([best, other], -1)
        gate, value = (self.up[chosen] * x[:, None, None, None, :]).sum(-1).unbind(2)
        hidden = torch.tanh(gate) * value * weights[..., None]
        return (self.down[chosen] * hidden[:, :, None, :]).sum((1, 3))


add(
    "one-then-another",
    3 * 3,
    lambda: dense(OneThenAnother(), 4),
    why="a scale for each hidden unit of each expert: joined choices are choices, not numbers",
)


def normed_then_parted(m: Written, x: Tensor) -> Tensor:
    y = torch.layer_norm(linear(x, m.w), (6,), m.gain, m.shift, 0.0)
    return torch.cat([torch.tanh(y[:, :2]), linear(y[:, 2:], m.read)], -1)


add(
    "normed-then-parted",
    8 + 1 + 3 + 4,
    written(8, normed_then_parted, w=(6, 8), gain=(6,), shift=(6,), read=(5, 4)),
    why="what a centring removes is the same in both parts of what it centres; the scale of a row, O(3) and a gain on one part",
)


def softmax_in_part(m: Written, x: Tensor) -> Tensor:
    return torch.softmax(linear(x, m.w, m.bias), -1)[..., :2]


add(
    "softmax-in-part",
    7 + 1,
    written(7, softmax_in_part, w=(6, 7), bias=(6,)),
    why="what is added to all scores, and no more: those whose share is not read still count in the sum",
)


def cut_behind_a_norm(m: Written, x: Tensor) -> Tensor:
    x = x @ (m.up @ m.down) if hasattr(m, "up") else x
    heads = linear(x, m.w, getattr(m, "bias", None)).unflatten(-1, (2, 3))
    y = nn.functional.layer_norm(heads, (3,))
    return torch.cat([torch.tanh(y[..., :1]), torch.sin(y[..., 1:])], -1)


add(
    "cut-behind-a-norm",
    2 * 4 + 2,
    written(4, cut_behind_a_norm, w=(6, 4), bias=(6,)),
    why="the mean of each head, though its coordinates go two ways behind the norm",
)
add(
    "cut-behind-a-norm-narrow",
    10 + 8 + 24 - 2 * (4 + 5 - 2),
    written(5, cut_behind_a_norm, up=(5, 2), down=(2, 4), w=(6, 4)),
    why="what no data fill, and the means of the rest: maps of rank two from five into four directions are seen",
)


def one_gain_on_both_sides(m: Written, x: Tensor) -> Tensor:
    q, k = (torch.rms_norm(linear(x, m.w, b), (3,), m.gain, 0.0) for b in (None, m.bias))
    return q @ k.mT


add(
    "one-gain-on-both-sides",
    1,
    written(5, one_gain_on_both_sides, w=(3, 5), bias=(3,), gain=(3,)),
    why="the scale that the norms take away; no rotation of queries and keys can be carried through one gain both ways",
)


def table_of_one_row(m: Written, tokens: Tensor) -> Tensor:
    kinds = torch.zeros_like(tokens)
    x = nn.functional.embedding(tokens, m.words) + nn.functional.embedding(kinds, m.kinds)
    return torch.tanh(linear(x, m.read)) + linear(x, m.other)


add(
    "table-of-one-row",
    3 * 3 + 3,
    lambda: Call(Written(table_of_one_row, words=(31, 3), kinds=(1, 3), read=(4, 3), other=(4, 3)), (tokens(31, 13),)),
    why="GL(3), and what is added to the one row is taken from all others, as from a bias",
)


def masked_then_bounded(m: Written, x: Tensor) -> Tensor:
    least = torch.tensor(torch.finfo(torch.float32).min)
    scores = linear(x, m.q) @ linear(x, m.k, m.bias).mT + least * (1 - torch.ones(x.shape[1], x.shape[1]).tril())
    return torch.softmax(torch.max(scores, least), -1) @ x


add(
    "masked-then-bounded",
    2 * 2 + 2,
    lambda: Call(Written(masked_then_bounded, q=(2, 3), k=(2, 3), bias=(2,)), (floats(5, 4, 3),)),
    why="the least number bounds no score from below: the bias of the keys shifts whole rows",
)


def bounded_scores(m: Written, x: Tensor) -> Tensor:
    scores = linear(x, m.q) @ linear(x, m.k, m.bias).mT
    return torch.softmax(torch.max(scores, torch.tensor(-0.1)), -1) @ x


add(
    "bounded-scores",
    2 * 2,
    lambda: Call(Written(bounded_scores, q=(2, 3), k=(2, 3), bias=(2,)), (floats(5, 4, 3),)),
    why="a bound that scores reach sees what is added to them",
)


def two_tables(own: bool, seen: bool = False) -> Call:
    """A table beside a function of the same token (`own`, else of the token before), read with another token. seen: the
    table is an output too."""

    def run(m: Written, tokens: Tensor) -> Tensor:
        x, rows = nn.functional.embedding(tokens, m.words), nn.functional.embedding(tokens, m.table)
        y, z = torch.rms_norm(linear(x, m.w), (3,), m.gain, 0.1), 0.5 * rows
        z = (y + z)[:, 1:] if own else y[:, :-1] + z[:, 1:]
        out = torch.tanh(linear(z, m.read) + linear(x[:, :-1], m.other))
        return torch.cat([out, rows[:, 1:]], -1) if seen else out

    shapes = {"words": (23, 4), "table": (23, 3), "w": (3, 4), "gain": (3,), "read": (8, 3), "other": (8, 4)}
    return Call(Written(run, **shapes), (tokens(23, 17),))


add(
    "table-takes-in-a-function",
    3 * 3 + 4 * 4 + 4 * 3 + 3,
    lambda: two_tables(own=True),
    why="a table takes in whatever else is a function of its token: the map and the gain of that may be anything",
)
add(
    "table-beside-another-token",
    3 + 3 + 4 * 4,
    lambda: two_tables(own=False),
    why="of the token before it takes in nothing: a rotation behind the norm, three scales, GL(4) on the words",
)
add(
    "table-that-is-seen",
    4 * 4,
    lambda: two_tables(own=True, seen=True),
    why="a table that is read elsewhere is not free to take in anything",
)


def replaced_tokens(how) -> Call:
    def run(m: Written, tokens: Tensor) -> Tensor:
        return torch.tanh(linear(nn.functional.embedding(how(tokens), m.table), m.read))

    return Call(Written(run, table=(13, 3), read=(5, 3)), (tokens(13, 17),))


add(
    "tokens-replaced",
    3 * 3 + 2 * 3,
    lambda: replaced_tokens(lambda t: torch.where((t == 5) | (t == 7), 0, t.clone())),
    why="two tokens are replaced by another: their rows are never read",
)
add(
    "tokens-replaced-in-part",
    3 * 3,
    lambda: replaced_tokens(lambda t: torch.where((t == 5) & (t.roll(1, -1) < 7), 0, t)),
    why="a token that is replaced in some places is read in others",
)
add(
    "tokens-exchanged",
    3 * 3,
    lambda: replaced_tokens(lambda t: torch.where(t == 5, 7, t.masked_fill(t == 7, 5))),
    why="each of two tokens is read where the other stands",
)


def cut_by_columns(m: Written, tokens: Tensor) -> Tensor:
    rows = nn.functional.embedding(torch.where((tokens == 5) | (tokens == 7), 0, tokens), m.table)
    return torch.cat([torch.tanh(linear(rows[..., :2], m.read)), torch.sin(linear(rows[..., 2:], m.other))], -1)


add(
    "tokens-replaced-cut",
    2 * (2 * 2) + 2 * 4,
    lambda: Call(Written(cut_by_columns, table=(13, 4), read=(4, 2), other=(4, 2)), (tokens(13, 17),)),
    why="rows that are never read, of a table whose columns go two ways",
)


add(
    "product-before-a-map",
    35 - 5 - 5,
    written(1, lambda m, x: linear(linear(x, m.p @ m.q), m.w, m.b), p=(4, 2), q=(2, 1), w=(5, 4), b=(5,)),
    why="one vector and one bias are seen; what p does beyond q is moved out of sight, and takes no direction that q fills",
)
