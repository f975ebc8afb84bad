"""Acts carried out together, slab by slab, against the same acts written out index by index."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from regauge.act.hadamard import randomised
from regauge.solve import slabs
from regauge.solve.acts import Act, Multiply, Plus, Reorder, Times
from regauge.solve.matrices import Product, dense
from regauge.solve.slabs import carry_out, normal_form, parts

SIZES = (3, 4, 6, 5)


@pytest.fixture(autouse=True)
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if these arrays were large: slabs of a few entries."""
    for name, size in {"SMALL": 0, "SLAB": 60, "TURNED": 60, "RUN": 2}.items():
        monkeypatch.setattr(slabs, name, size)


def plain(acts: list[Act], x: Tensor) -> Tensor:
    """Entry by entry, in double precision."""
    at = [range(n) for n in x.shape]
    a = x.double().numpy()

    def entry(f: np.ndarray, i: tuple[int, ...]) -> float:
        return float(f[tuple(min(k, n - 1) for k, n in zip(i, f.shape, strict=True))])

    for act in acts:
        b = a.copy()
        match act:
            case Times(factors):
                for f in (f.double().numpy() for f in factors):
                    for i in product(*at):
                        b[i] *= entry(f, i)
            case Plus(terms):
                for f in (term().double().numpy() for term in terms):
                    for i in product(*at):
                        b[i] += entry(f, i)
            case Reorder(order, leaf, places):
                for i in product(*at):
                    k = int(order[(*(i[p] for p in places), i[leaf])])
                    b[i] = a[(*i[:leaf], k, *i[leaf + 1 :])]
            case Multiply(m, leaf, places):
                full = dense(m).numpy()
                for i in product(*at):
                    row = full[(*(i[p] for p in places), i[leaf])]
                    b[i] = sum(row[k] * a[(*i[:leaf], k, *i[leaf + 1 :])] for k in at[leaf])
        a = b
    return torch.from_numpy(a)


def acts(seed: int) -> list[Act]:
    """A few acts on an array of these sizes, drawn at random; orders local over one or two leaves among them."""
    g = torch.Generator().manual_seed(seed)

    def pick(n: int) -> int:
        return int(torch.randint(n, (), generator=g))

    out: list[Act] = []
    for _ in range(2 + pick(6)):
        leaf = pick(4)
        others = [k for k in range(4) if k != leaf]
        places = tuple(others[k] for k in torch.randperm(3, generator=g)[: pick(3)].tolist())
        lead = [SIZES[p] for p in places]
        wide = [n if pick(2) else 1 for n in SIZES]
        match pick(6):
            case 0 | 1:
                two = (wide, (1, SIZES[1], 1, 1))
                out.append(Times(tuple(torch.randn(n, generator=g, dtype=torch.float64) for n in two)))
            case 2 | 3:
                out.append(Reorder(torch.argsort(torch.rand(*lead, SIZES[leaf], generator=g), -1), leaf, places))
            case 4:
                t = torch.randn(wide, generator=g, dtype=torch.float64)
                out.append(Plus((lambda t=t: t,)))  # type: ignore[misc]
            case 5:
                m = torch.randn(*lead, SIZES[leaf], SIZES[leaf], generator=g, dtype=torch.float64)
                if leaf == 1:
                    out.append(Multiply(randomised(SIZES[leaf], tuple(lead), g), leaf, places))
                else:
                    out.append(Multiply(m, leaf, places))
    return out


@pytest.mark.parametrize("seed", range(30))
def test_against_single_entries(seed: int) -> None:
    a = acts(seed)
    x = torch.randn(SIZES, generator=torch.Generator().manual_seed(seed)).bfloat16()
    expected = plain(a, x)
    scale = float(expected.abs().max())
    found = carry_out(a, x, torch.float64, torch.float64)
    assert float((found - expected).abs().max()) < 1e-13 * scale
    narrow = carry_out(a, x, torch.float32, torch.bfloat16)
    assert float((narrow.double() - expected).abs().max()) <= 2**-8 * scale
    with ThreadPoolExecutor(3) as crew:
        assert torch.equal(carry_out(a, x, torch.float32, torch.bfloat16, crew), narrow)
        assert torch.equal(torch.cat(list(parts(a, x, torch.float32, torch.bfloat16, crew))).view(SIZES), narrow)


def test_the_draws_reach_all_forms() -> None:
    forms = [normal_form(acts(seed), SIZES) for seed in range(30)]
    assert any(f is None for f in forms)
    held = [f for f in forms if f is not None]
    assert any(len(f.sizes) < 4 and f.orders for f in held)
    assert any(isinstance(a, Multiply) and a.places and isinstance(a.matrices, Product) for f in held for a in f.acts)
    assert any(isinstance(a, Reorder) for f in held for a in f.acts)


@pytest.mark.parametrize("sizes", [(6, 5), (1, 7), (9,)])
def test_matrices_along_every_axis(sizes: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(sizes, generator=g, dtype=torch.float64)
    turns = [Multiply(torch.randn(n, n, generator=g, dtype=torch.float64), k) for k, n in enumerate(sizes)]
    a: list[Act] = [
        *turns,
        Times((torch.randn(sizes[:1] + (1,) * (len(sizes) - 1), generator=g).double(),)),
        *turns[::-1],
    ]
    form = normal_form(a, sizes)
    assert form is not None and len(list(form.stages())) > 1
    expected = plain(a, x)
    found = carry_out(a, x, torch.float64, torch.float64)
    assert float((found - expected).abs().max()) < 1e-13 * float(expected.abs().max())


def test_a_rounding_for_each_number() -> None:
    """bfloat16 in and out: the nearest number to the exact product, which is what rounding once means."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 30, generator=g).bfloat16()
    rows, columns = (torch.rand(n, generator=g, dtype=torch.float64) + 0.5 for n in ((40, 1), (1, 30)))
    p, q = torch.randperm(40, generator=g), torch.randperm(30, generator=g)
    found = carry_out(
        [Times((rows, columns)), Reorder(p, 0), Times((1 / rows,)), Reorder(q, 1)], x, torch.float64, torch.bfloat16
    )
    exact = (x.double() * rows * columns)[p] * (1 / rows)
    assert torch.equal(found, exact[:, q].bfloat16())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_orders_and_signs_keep_the_bits(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 30, generator=g, dtype=torch.float64).to(dtype)
    signs = 1.0 - 2.0 * torch.randint(0, 2, (40, 1), generator=g)
    p, q = torch.randperm(40, generator=g), torch.randperm(30, generator=g)
    found = carry_out([Reorder(p, 0), Times((signs,)), Reorder(q, 1)], x, torch.float32, dtype)
    assert torch.equal(found, x[p][:, q] * signs.to(dtype))
