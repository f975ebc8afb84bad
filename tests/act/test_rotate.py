"""Rotations of bonds: in the group, in factored form, and what each is for."""

import pytest
import torch

from regauge import act
from regauge.act.hadamard import factors, order_exists, randomised, randomised_fixing_ones
from regauge.act.recipe import After
from regauge.act.select import sources
from regauge.errors import InputError
from regauge.solve.element import Rotate
from regauge.solve.matrices import Product, dense, dual, inverse, multiply
from tests.act.models import assert_keeps, subject


def kronecker(blocks: tuple[torch.Tensor, ...]) -> torch.Tensor:
    h = torch.ones(1, 1, dtype=torch.float64)
    for b in blocks:
        h = torch.kron(h, b)
    return h


@pytest.mark.parametrize("n", [1, 2, 4, 12, 20, 28, 36, 52, 92, 100, 116, 244, 576, 28 * 16, 960, 1536])
def test_hadamard(n: int) -> None:
    h = kronecker(factors(n))
    assert torch.equal(h @ h.mT, n * torch.eye(n, dtype=torch.float64))


def test_every_order_of_the_list() -> None:
    """Below 256 all multiples of 4 but four."""
    assert not order_exists(6) and not order_exists(3)
    missing = [n for n in range(4, 256, 4) if not order_exists(n)]
    assert missing == [156, 172, 188, 236]
    with pytest.raises(InputError, match="orthogonal"):
        factors(6)


@pytest.mark.parametrize("make", [randomised, randomised_fixing_ones])
def test_factors_are_the_dense_matrix(make) -> None:
    m = make(24, (2, 3), torch.Generator().manual_seed(0))
    full = dense(m)
    unit = torch.eye(24, dtype=torch.float64).expand(2, 3, 24, 24)
    assert torch.allclose(full @ full.mT, unit, atol=1e-13)
    assert torch.allclose(dense(inverse(m)) @ full, unit, atol=1e-13)
    assert torch.allclose(dense(dual(m)), full, atol=1e-13)
    assert not torch.allclose(full[0, 0], full[1, 1])
    if make is randomised_fixing_ones:
        ones = torch.ones(24, dtype=torch.float64)
        assert torch.allclose(full @ ones, ones.expand(2, 3, 24), atol=1e-13)
    array = torch.randn(5, 2, 24, 3, 4, dtype=torch.float64)
    expected = torch.einsum("pqij,xpjqy->xpiqy", full, array)
    assert torch.allclose(multiply(array, m, 2, [1, 3]), expected, atol=1e-12)
    assert torch.allclose(multiply(array, full, 2, [1, 3]), expected, atol=1e-12)


@pytest.mark.parametrize("how", ["hadamard", "orthogonal"])
@pytest.mark.parametrize(
    ("name", "bond"), [("llama-gqa", "stream"), ("llama-gqa", "heads"), ("neox-parallel", "stream")]
)
def test_keeps_the_function(name: str, bond: str, how: str) -> None:
    s = subject(name)
    e = act.rotate(s.gauge, s.state, bond, how, seed=3)
    image = assert_keeps(s, e)
    assert any(not torch.equal(image[n], s.state[n]) for n in image)
    (move,) = e.moves
    assert isinstance(move, Rotate)
    assert all(isinstance(m, Product) for m in move.matrices.values()) == (how == "hadamard")
    folded = act.fold(s.gauge, s.state)
    assert_keeps(s, act.rotate(s.gauge, After(folded, s.state), bond, how, seed=3) @ folded)


def test_a_frame_that_fixes_ones() -> None:
    s = subject("neox-parallel")
    (source,) = sources(s.gauge, "stream")
    assert source.kind == "O1"


def test_rotated_stream_is_the_product_with_the_dense_matrix() -> None:
    s = subject("llama-gqa")
    folded = act.fold(s.gauge, s.state).apply(s.state)
    e = act.rotate(s.gauge, folded, "stream", "hadamard", seed=1)
    image = e.apply(folded)
    m = dense(next(iter(e.moves[0].matrices.values())))
    table = "model.embed_tokens.weight"
    assert torch.allclose(image[table], folded[table] @ m.mT, atol=1e-13)


def test_principal_axes_diagonalise_the_moments() -> None:
    s = subject("llama-gqa")
    folded = act.fold(s.gauge, s.state)
    a = torch.randn(8, 8, dtype=torch.float64)
    moments = a @ a.mT
    e = act.rotate(s.gauge, After(folded, s.state), "stream", "pca", moments=moments)
    assert_keeps(s, e @ folded)
    m = dense(next(iter(e.moves[0].matrices.values())))
    turned = m @ moments @ m.mT
    values = torch.diagonal(turned)
    assert torch.allclose(turned, torch.diag(values), atol=1e-10) and bool((values[:-1] >= values[1:]).all())
    by_name = act.rotate(s.gauge, s.state, "stream", "pca", moments={"stream": moments})
    assert torch.equal(dense(next(iter(by_name.moves[0].matrices.values()))), m)


def test_a_matrix_of_the_users() -> None:
    s = subject("llama-gqa")
    q = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    assert_keeps(s, act.rotate(s.gauge, s.state, "stream", q))
    with pytest.raises(InputError, match="orthogonal"):
        act.rotate(s.gauge, s.state, "stream", 1.1 * q)
    with pytest.raises(InputError, match="shape"):
        act.rotate(s.gauge, s.state, "stream", q[:4, :4])
    values = [b.name for b in s.gauge.bonds if b.name.endswith("v_proj.weight[0]")]
    assert_keeps(s, act.rotate(s.gauge, s.state, values[0], torch.randn(4, 4, dtype=torch.float64)))
    with pytest.raises(InputError, match="singular"):
        act.rotate(s.gauge, s.state, values[0], torch.zeros(4, 4))


def test_what_is_not_there_is_said() -> None:
    s = subject("llama-gqa-tied")
    with pytest.raises(InputError, match="untie"):
        act.rotate(s.gauge, s.state, "stream")
    with pytest.raises(InputError, match="neither a bond nor a kind"):
        act.rotate(s.gauge, s.state, "nowhere")
    with pytest.raises(InputError, match="second moments"):
        act.rotate(s.gauge, s.state, "heads", "pca")
    with pytest.raises(InputError, match="hadamard, orthogonal, pca"):
        act.rotate(s.gauge, s.state, "heads", "wavelet")


def test_a_gain_of_zero_blocks_the_rotation_across_it() -> None:
    s = subject("llama-gqa")
    state = dict(s.state)
    name = "model.norm.weight"
    state[name] = state[name].clone()
    state[name][2] = 0
    with pytest.raises(InputError, match="gain of zero"):
        act.rotate(s.gauge, state, "stream")
