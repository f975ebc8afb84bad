"""Diffeomorphisms: inverses, tangents against finite differences, log-determinants against slogdet."""

import flow_fields as fields
import pytest
import torch

from regauge import flow
from regauge.errors import CheckError, InputError

X = fields.states()
TIMES = {
    "scalar": torch.tensor(0.37, dtype=torch.float64),
    "per_sample": torch.linspace(0.1, 0.9, 7, dtype=torch.float64),
}


@pytest.mark.parametrize("when", TIMES)
@pytest.mark.parametrize("name", fields.diffeos())
def test_roundtrip_tangent_and_log_det(name, when):
    phi, r = fields.diffeos()[name], TIMES[when]
    y = phi.push(r, X)
    assert torch.allclose(phi.pull(r, y), X, atol=1e-8)
    assert torch.allclose(phi.inverse().push(r, y), X, atol=1e-8)
    assert float((y - X).abs().max()) > 1e-2  # not a test of the identity
    v, rdot, eps = fields.states(seed=6), torch.tensor(0.7, dtype=torch.float64).expand_as(r), 1e-5
    ahead, behind = (phi.push(r + s * eps * rdot, X + s * eps * v) for s in (1, -1))
    difference = (ahead - behind) / (2 * eps)
    assert torch.allclose(phi.tangent(r, X, v, rdot), difference, atol=2e-6)
    for k in range(3):
        one = r if r.dim() == 0 else r[k : k + 1]
        jac = torch.autograd.functional.jacobian(lambda z, q=one: phi.push(q, z.unsqueeze(0)).squeeze(0), X[k])
        assert phi.log_det(r, X)[k].item() == pytest.approx(torch.linalg.slogdet(jac).logabsdet.item(), abs=1e-7)


def test_fresh_learned_gauges_are_the_identity():
    r = torch.tensor(0.6)
    x = X.float()
    for phi in (flow.BernsteinScale(5, 3), flow.LowRankDiffeo(torch.randn(3, 2)), flow.CouplingDiffeo(3)):
        assert torch.allclose(phi.push(r, x), x, atol=1e-6)


def test_newton_says_where_it_fails():
    fold = flow.PullDiffeo(lambda r, y: y**2 + 1)  # no y with y^2 + 1 = -1
    with pytest.raises((CheckError, RuntimeError), match="Newton|singular"):
        fold.push(torch.tensor(0.5, dtype=torch.float64), torch.full((1, 2), -1.3, dtype=torch.float64))


def test_wrong_frames_are_refused():
    with pytest.raises(InputError, match="does not carry"):
        flow.BernsteinScale(4, 3, torch.eye(2))
    with pytest.raises(InputError, match="no other half"):
        flow.CouplingLayer(1, torch.tensor([0]))
