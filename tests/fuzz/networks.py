"""Random small networks as data: a tuple of steps, each of which makes one value from earlier ones.

`random_network(choose)` draws one; `choose` picks from a sequence, so that hypothesis and a plain random generator can both
drive it. Widths repeat on purpose: axes that are equal by accident are where a compiler guesses wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

Choose = Callable[[Sequence[Any]], Any]
BATCH, TIME, TOKENS = 5, 3, 23
WIDTHS = (2, 3, 3, 4, 4, 6)
MOST = 24  # entries that one value may have for each batch and time
SMOOTH = ("tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "sin", "exp", "cube", "cos")
KINKED = (
    "relu",
    "leaky_relu",
    "square",
    "relu_square",
    "abs",
    "neg",
    "double",
    "relu6",
    "hardswish",
    "hardtanh",
    "log_abs",
)


@dataclass(frozen=True)
class Step:
    """values[-1] = op(values[i] for i in args; parameters and numbers in `of`). shape: of the result, without the batch."""

    op: str
    args: tuple[int, ...]
    of: tuple[Any, ...]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        inner = ", ".join([*(f"%{a}" for a in self.args), *map(str, self.of)])
        return f"{self.op}({inner}) -> {list(self.shape)}"


@dataclass(frozen=True)
class Network:
    """tokens: whether the input is whole numbers. outputs: the values that are observed."""

    width: int
    tokens: bool
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    parameters: tuple[tuple[str, tuple[int, ...]], ...]

    def __str__(self) -> str:
        start = f"%0 = {'tokens' if self.tokens else 'floats'} -> {[TIME] if self.tokens else [TIME, self.width]}"
        lines = [start, *(f"%{i + 1} = {s}" for i, s in enumerate(self.steps))]
        shapes = " ".join(f"{n}{list(s)}" for n, s in self.parameters)
        return "\n".join([*lines, f"returns {', '.join(f'%{o}' for o in self.outputs)}", f"parameters {shapes}"])

    __repr__ = __str__


class Draft:
    """A network while it is drawn."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = []
        self.parameters: dict[str, tuple[int, ...]] = {}

    def emit(self, op: str, args: Sequence[int], shape: Sequence[int], *of: Any) -> int:
        self.steps.append(Step(op, tuple(args), tuple(of), tuple(shape)))
        self.shapes.append(tuple(shape))
        return len(self.shapes) - 1

    def parameter(self, *shape: int) -> str:
        """A fresh parameter, or now and then an old one of this shape: a tie."""
        same = [n for n, s in self.parameters.items() if s == shape]
        if same and self.choose(range(5)) == 0:
            return self.choose(same)
        name = f"p{len(self.parameters)}"
        self.parameters[name] = shape
        return name

    def recent(self) -> int:
        """A value, rather a late one."""
        last = len(self.shapes) - 1
        return self.choose([last] * 6 + [max(last - 1, self.first), *range(self.first, last + 1)])

    first = 0

    def like(self, i: int) -> list[int]:
        """Other values of the same shape."""
        return [j for j in range(self.first, len(self.shapes)) if self.shapes[j] == self.shapes[i]]


def random_network(choose: Choose) -> Network:
    d = Draft(choose)
    width, tokens = choose(WIDTHS), choose(range(6)) == 0
    d.shapes.append((TIME,) if tokens else (TIME, width))
    if tokens:
        d.emit("embed", [0], (TIME, width), d.parameter(TOKENS, width))
        d.first = 1
    else:
        linear(d, 0)
        d.first = choose((0, 1, 1))
    for _ in range(choose(range(3, 14))):
        name = choose(MENU)
        MAKERS[name](d)
    last = len(d.shapes) - 1
    outputs = [last]
    if d.shapes[last][1:] and choose(range(3)):
        outputs = [linear(d, last, choose((3, 5, 8)))]
    if choose(range(8)) == 0:
        outputs.append(d.recent())
    return alive(Network(width, tokens, tuple(d.steps), tuple(dict.fromkeys(outputs)), tuple(d.parameters.items())))


def alive(network: Network) -> Network:
    """Without the steps and parameters that no output needs."""
    needed = set(network.outputs)
    for i in range(len(network.steps), 0, -1):
        if i in needed:
            needed.update(network.steps[i - 1].args)
    kept = [i for i in range(1, len(network.steps) + 1) if i in needed]
    new = {0: 0, **{old: k + 1 for k, old in enumerate(kept)}}
    steps = tuple(replace(network.steps[i - 1], args=tuple(new[a] for a in network.steps[i - 1].args)) for i in kept)
    used = {a for s in steps for a in s.of if isinstance(a, str)}
    parameters = tuple((n, s) for n, s in network.parameters if n in used)
    return replace(network, steps=steps, outputs=tuple(new[o] for o in network.outputs), parameters=parameters)


def linear(d: Draft, i: int, out: int | None = None) -> int:
    *lead, n = d.shapes[i]
    if n > 6 and out is None:
        out = d.choose((2, 3, 4))
    m = out or d.choose((n, *WIDTHS))
    how = d.choose(("plain", "plain", "plain", "bias", "bias", "bias", "transposed", "low rank", "weight norm"))
    match how:
        case "plain":
            return d.emit("linear", [i], (*lead, m), d.parameter(m, n))
        case "bias":
            return d.emit("linear", [i], (*lead, m), d.parameter(m, n), d.parameter(m))
        case "transposed":
            return d.emit("matmul_weight", [i], (*lead, m), d.parameter(n, m))
        case "low rank":
            return d.emit("low_rank", [i], (*lead, m), d.parameter(m, 2), d.parameter(2, n))
    return d.emit("weight_norm", [i], (*lead, m), d.parameter(m, n), d.parameter(m))


def make_linear(d: Draft) -> None:
    linear(d, d.recent())


def make_smooth(d: Draft) -> None:
    i = d.recent()
    d.emit("function", [i], d.shapes[i], d.choose(SMOOTH))


def make_kinked(d: Draft) -> None:
    i = d.recent()
    d.emit("function", [i], d.shapes[i], d.choose(KINKED))


def make_prelu(d: Draft) -> None:
    i = d.recent()
    d.emit("prelu", [i], d.shapes[i], d.parameter(d.shapes[i][-1]))


def make_pair(d: Draft) -> None:
    i = d.recent()
    j = d.choose(d.like(i))
    d.emit(
        d.choose(("add", "add", "add", "sub", "mul", "mul", "gate", "maximum", "mean_of", "divide")),
        [i, j],
        d.shapes[i],
    )


def make_residual(d: Draft) -> None:
    """x + f(x), with f between two linear maps, as in most networks."""
    i = d.recent()
    *lead, n = d.shapes[i]
    x = i
    if d.choose((True, False)):
        x = norm(d, i)
    h = linear(d, x, d.choose(WIDTHS))
    h = d.emit("function", [h], d.shapes[h], d.choose(KINKED + SMOOTH))
    y = linear(d, h, n)
    if d.choose(range(4)) == 0:
        y = d.emit("gain", [y], d.shapes[y], d.parameter(n))
    z = d.emit("add", [i, y], (*lead, n))
    if d.choose(range(4)) == 0:
        norm(d, z)


def make_vector(d: Draft) -> None:
    """A parameter or a constant along the last axis, or along the last two."""
    i = d.recent()
    shape = d.shapes[i][-d.choose((1, 1, 1, 2)) :]
    kind = d.choose(("bias", "gain", "gain_plus_one", "exp_gain", "constant_bias", "constant_gain", "scalar_gain"))
    if kind == "scalar_gain":
        d.emit("gain", [i], d.shapes[i], d.parameter(1))
    elif kind.startswith("constant"):
        d.emit(kind, [i], d.shapes[i], *shape)
    else:
        d.emit(kind, [i], d.shapes[i], d.parameter(*shape))


NORMS = (
    "layer_norm",
    "layer_norm",
    "layer_norm_bare",
    "rms_norm",
    "rms_norm",
    "rms_norm_eps0",
    "centre",
    "normalise",
    "unit",
)


def norm(d: Draft, i: int) -> int:
    kind, n = d.choose(NORMS), d.shapes[i][-1]
    if n < 3:  # nothing but signs would be left: no rank shows there
        kind = "normalise"
    match kind:
        case "layer_norm":
            return d.emit(kind, [i], d.shapes[i], d.parameter(n), d.parameter(n))
        case "rms_norm" | "rms_norm_eps0":
            return d.emit(kind, [i], d.shapes[i], d.parameter(n))
    return d.emit(kind, [i], d.shapes[i])


def make_norm(d: Draft) -> None:
    norm(d, d.recent())


def make_batch_norm(d: Draft) -> None:
    i = d.recent()
    d.emit("batch_norm", [i], d.shapes[i], d.parameter(d.shapes[i][-1]), d.parameter(d.shapes[i][-1]))


def make_group_norm(d: Draft) -> None:
    i = d.recent()
    n = d.shapes[i][-1]
    groups = [g for g in (1, 2, 3) if n % g == 0 and n > g]
    if groups:
        d.emit("group_norm", [i], d.shapes[i], d.choose(groups), d.parameter(n), d.parameter(n))


def make_softmax(d: Draft) -> None:
    i = d.recent()
    d.emit(
        d.choose(("softmax", "softmax", "log_softmax", "logsumexp", "cumsum", "sort")),
        [i],
        d.shapes[i],
        d.choose((-1, -1, 1)),
    )


def make_view(d: Draft) -> None:
    """Cut the last axis in two, join the last two, or swap two axes."""
    i = d.recent()
    *lead, n = d.shapes[i]
    ways = [("split", (*lead, a, n // a)) for a in (2, 3) if n % a == 0 and n > a and len(lead) < 3]
    if len(lead) > 1:
        ways.append(("join", (*lead[:-1], lead[-1] * n)))
        ways.append(("swap", (*lead[:-1], n, lead[-1])))
        ways.append(("swap_join", (*lead[:-1], lead[-1] * n)))
    if len(lead) == 1 and n == TIME:
        ways.append(("swap", (n, *lead)))
    if ways:
        op, shape = d.choose(ways)
        d.emit(op, [i], shape)


def make_cut(d: Draft) -> None:
    """A part of the last axis, and perhaps a product of two halves."""
    i = d.recent()
    *lead, n = d.shapes[i]
    if n < 2:
        return
    size = d.choose(range(1, n))
    start = d.choose(range(n - size + 1))
    a = d.emit("narrow", [i], (*lead, size), start, size)
    if n % 2 == 0 and d.choose((True, False)):
        a = d.emit("narrow", [i], (*lead, n // 2), 0, n // 2)
        b = d.emit("narrow", [i], (*lead, n // 2), n // 2, n // 2)
        d.emit(d.choose(("gate", "mul", "add")), [a, b], (*lead, n // 2))


def make_glimpse(d: Draft) -> None:
    """A part of what acts along the last axis as a whole: the rest is not read, and yet it counts."""
    i = linear(d, d.recent())
    *lead, n = d.shapes[i]
    if n < 3:
        return
    if d.choose((True, False)):
        i = d.emit("bias", [i], d.shapes[i], d.parameter(n))
    match d.choose(("softmax", "log_softmax", "cumsum", "winner", "norm")):
        case "norm":
            i = norm(d, i)
        case "winner":
            i = d.emit("winner", [i], d.shapes[i])
        case along:
            i = d.emit(along, [i], d.shapes[i], -1)
    size = d.choose(range(1, n))
    d.emit("narrow", [i], (*lead, size), d.choose(range(n - size + 1)), size)


def make_reorder(d: Draft) -> None:
    i = d.recent()
    kind = d.choose(("flip", "roll", "permuted", "repeat", "pad", "every_second", "interleave"))
    *lead, n = d.shapes[i]
    sizes = {"repeat": 2 * n, "pad": n + 1, "every_second": (n + 1) // 2, "interleave": 2 * n}
    if prod(lead[1:]) * sizes.get(kind, n) <= MOST // 2:
        d.emit(kind, [i], (*lead, sizes.get(kind, n)))


def make_join(d: Draft) -> None:
    i = d.recent()
    *lead, n = d.shapes[i]
    fit = [j for j in range(d.first, len(d.shapes)) if list(d.shapes[j][:-1]) == lead]
    j = d.choose(fit)
    if prod(lead[1:]) * (n + d.shapes[j][-1]) <= MOST // 2:
        d.emit("cat", [i, j], (*lead, n + d.shapes[j][-1]))


def make_stack(d: Draft) -> None:
    i = d.recent()
    j = d.choose(d.like(i))
    if len(d.shapes[i]) < 4:
        d.emit("stack", [i, j], (*d.shapes[i][:-1], 2, d.shapes[i][-1]))


def make_reduce(d: Draft) -> None:
    i = d.recent()
    kind = d.choose(("sum_last", "mean_last", "mean_time", "max_last", "max_time", "sum_time", "var_last", "norm_last"))
    shape = d.shapes[i] if kind.endswith("time") else (*d.shapes[i][:-1], 1)
    d.emit(kind, [i], shape)


def make_broadcast(d: Draft) -> None:
    """A value with one entry on the last axis, against a wide one."""
    narrow = [j for j in range(d.first, len(d.shapes)) if d.shapes[j][-1] == 1]
    i = d.recent()
    fit = [j for j in narrow if d.shapes[j][:-1] == d.shapes[i][:-1]]
    if fit:
        d.emit(d.choose(("add", "mul", "gate", "sub")), [i, d.choose(fit)], d.shapes[i])


def make_einsum(d: Draft) -> None:
    i = d.recent()
    *lead, n = d.shapes[i]
    j = d.choose(d.like(i))
    kind = d.choose(("dot", "outer", "gram", "time_mix", "constant_map", "quadratic", "contract"))
    match kind:
        case "dot":
            d.emit(kind, [i, j], (*lead, 1))
        case "outer" if n * n * prod(lead[1:]) <= MOST:
            d.emit(kind, [i, j], (*lead, n * n))
        case "gram" if len(lead) == 1:
            d.emit(kind, [i, j], (TIME, TIME))
        case "contract" if len(lead) == 2:
            d.emit(kind, [i, j], (lead[0], n, n))
        case "time_mix":
            d.emit(
                kind, [i], d.shapes[i], d.parameter(TIME, lead[0]) if lead[0] == TIME else d.parameter(lead[0], lead[0])
            )
        case "constant_map":
            d.emit(kind, [i], d.shapes[i], n)
        case "quadratic":
            d.emit(kind, [i, j], (*lead, 1), d.parameter(n, n))


def make_attention(d: Draft) -> None:
    """Heads over time: softmax or relu, rotary or not, masked or not, keys and values shared by two heads or not."""
    i = d.recent()
    if len(d.shapes[i]) != 2 or d.shapes[i][0] != TIME:
        return
    n, heads, size = d.shapes[i][-1], d.choose((1, 2, 2)), d.choose((2, 2, 4))
    groups = d.choose((heads, heads, 1))
    x = norm(d, i) if d.choose((True, False)) else i
    q = linear(d, x, heads * size)
    k, v = (linear(d, d.choose((x, x, x, i)), groups * size) for _ in range(2))
    kind = d.choose(("softmax", "softmax", "causal", "causal", "relu", "linear", "sdpa", "sdpa", "sigmoid"))
    pose = d.choose(("none", "none", "none", "rotary", "rotary half", "norm", "norm rotary"))
    of = [d.parameter(size), d.parameter(size)] if pose.startswith("norm") else []
    y = d.emit("attention", [q, k, v], (TIME, heads * size), heads, groups, size, kind, pose, *of)
    y = linear(d, y, n)
    d.emit("add", [i, y], d.shapes[i])


def make_conv(d: Draft) -> None:
    i = d.recent()
    if len(d.shapes[i]) != 2 or d.shapes[i][0] != TIME:
        return
    n = d.shapes[i][-1]
    kind = d.choose(("full", "depthwise", "grouped"))
    if kind == "full":
        m = d.choose(WIDTHS)
        d.emit("conv", [i], (TIME, m), 1, d.parameter(m, n, 3), d.parameter(m))
    elif kind == "depthwise":
        d.emit("conv", [i], (TIME, n), n, d.parameter(n, 1, 3), d.parameter(n))
    elif n % 2 == 0:
        d.emit("conv", [i], (TIME, n), 2, d.parameter(n, n // 2, 3), d.parameter(n))


def make_recurrence(d: Draft) -> None:
    """A few steps of h = f(W h + x_t)."""
    i = d.recent()
    if len(d.shapes[i]) == 2 and d.shapes[i][0] == TIME:
        n = d.shapes[i][-1]
        d.emit("recurrence", [i], d.shapes[i], d.choose(("tanh", "relu", "none")), d.parameter(n, n))


def make_again(d: Draft) -> None:
    """A step with parameters once more, on another value: a module that is reused."""
    learned = [
        s for s in d.steps if s.op in ("linear", "layer_norm", "rms_norm", "gain", "bias", "matmul_weight", "conv")
    ]
    if not learned:
        return
    s = d.choose(learned)
    shape = d.shapes[s.args[0]]
    fit = [j for j in range(d.first, len(d.shapes)) if d.shapes[j] == shape]
    if fit:
        d.emit(s.op, [d.choose(fit)], s.shape, *s.of)


def make_tied(d: Draft) -> None:
    """A weight read the other way round."""
    i = d.recent()
    *lead, n = d.shapes[i]
    fit = [name for name, s in d.parameters.items() if len(s) == 2 and s[0] == n and s[1] <= 6]
    if fit:
        name = d.choose(fit)
        d.emit("matmul_weight", [i], (*lead, d.parameters[name][1]), name)
    same = [name for name, s in d.parameters.items() if len(s) == 2 and s[1] == n]
    if same:
        name = d.choose(same)
        d.emit("linear", [i], (*lead, d.parameters[name][0]), name)


def make_route(d: Draft) -> None:
    """A mixture: softmax weights of a few linear experts."""
    i = d.recent()
    *lead, n = d.shapes[i]
    m = d.choose((n, 3))
    d.emit("mixture", [i], (*lead, m), d.parameter(3, n), d.parameter(3, m, n), d.choose(("softmax", "sigmoid", "top")))


def make_where(d: Draft) -> None:
    i = d.recent()
    j = d.choose(d.like(i))
    d.emit(d.choose(("where_positive", "where_mask", "clamp")), [i, j], d.shapes[i])


MAKERS: dict[str, Callable[[Draft], None]] = {
    name.removeprefix("make_"): f for name, f in list(globals().items()) if name.startswith("make_")
}
OFTEN = ("linear pair residual " * 3 + "linear vector norm view attention again kinked smooth").split()
MENU = (*MAKERS, *OFTEN)
