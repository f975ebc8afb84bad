"""Reading torch modules: what they compute decides, not what they are called."""

import numpy as np
import pytest
import torch
from torch import nn

from regauge.errors import InputError
from regauge.polytope import Abs, Maxout, MaxPieces, extract, fit, module, network, read


class Folded(nn.Module):
    """A user's own |z|."""

    def forward(self, z):
        return torch.maximum(z, -z)


def linear(n, m):
    return nn.Linear(n, m, bias=False)


@pytest.mark.parametrize(
    "act",
    [nn.ReLU(), nn.LeakyReLU(0.2), Abs(), Folded(), nn.PReLU(), nn.PReLU(6, init=-0.5), nn.ReLU6(), nn.Hardtanh()],
    ids=lambda a: type(a).__name__,
)  # fmt: skip
def test_activations(act):
    torch.manual_seed(0)
    model = nn.Sequential(linear(3, 6), act, linear(6, 1))
    if isinstance(act, (nn.ReLU6, nn.Hardtanh)):  # bounded, so not homogeneous
        with pytest.raises(InputError, match=f"1 \\({type(act).__name__}\\) is not positively homogeneous"):
            read(model)
        return
    net, x = read(model), torch.randn(50, 3)
    assert np.abs(net(x.numpy()) - model(x)[:, 0].detach().numpy()).max() < 1e-5


def test_nested_linear_chains_identity_and_maxout():
    torch.manual_seed(1)
    inner = nn.Sequential(linear(4, 6), nn.Identity(), MaxPieces(3))
    model = nn.Sequential(
        linear(3, 5), linear(5, 4), inner, linear(2, 5), nn.PReLU(5), linear(5, 2), linear(2, 1)
    ).double()
    net, x = read(model), torch.randn(50, 3, dtype=torch.float64)
    assert [layer.units for layer in net.layers] == [2, 5]
    assert net.layers[0].activation == Maxout(3)
    assert np.abs(net(x.numpy()) - model(x)[:, 0].detach().numpy()).max() < 1e-12


def test_there_and_back():
    rng = np.random.default_rng(0)
    for kind in ("abs", "relu", "leaky"):
        net = network([rng.normal(size=(4, 3)), rng.normal(size=(3, 4))], np.ones(3), kind)
        again = read(module(net))
        points = rng.normal(size=(9, 3))
        assert np.abs(again(points) - net(points)).max() < 1e-12
        assert extract(again).f_vector == extract(net).f_vector


def test_a_model_can_be_fitted_in_place():
    torch.manual_seed(0)
    model = nn.Sequential(linear(2, 6), nn.ReLU(), linear(6, 1)).double()
    with torch.no_grad():
        model[2].weight.abs_()
    found = fit(model, steps=400, points=200, rate=0.03)
    assert found.rms < 0.1
    assert np.abs(read(model).out - found.network.out).max() == 0


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), linear(4, 1)), "0 .Linear. has a bias"),
        (nn.Sequential(linear(3, 4), nn.GELU(), linear(4, 1)), "1 .GELU. is not positively homogeneous"),
        (nn.Sequential(linear(3, 4), nn.LayerNorm(4), linear(4, 1)), "1 .LayerNorm."),
        (nn.Sequential(linear(3, 4), nn.ReLU()), "4 features"),
        (nn.Sequential(nn.ReLU(), linear(4, 1)), "before the first linear map"),
        (nn.Sequential(linear(3, 1)), "no nonlinear layer"),
        (nn.Sequential(linear(3, 4), nn.ReLU(), linear(5, 1)), "reads 5 features, but gets 4"),
        (nn.Sequential(linear(1, 4), nn.ReLU(), linear(4, 1)), "dimension 1"),
        (nn.Sequential(nn.Identity()), "no linear map"),
    ],
)
def test_what_is_no_body_is_refused_in_one_sentence(model, words):
    with pytest.raises(InputError, match=words) as caught:
        read(model)
    assert "\n" not in str(caught.value)
