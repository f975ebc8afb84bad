"""The compiler sees the lattice: dimensions by Jacobian rank, and by inference where it is there."""

import pytest
import torch

import regauge
from regauge import flow
from regauge.flow.lattice import EulerField


class Tanh(torch.nn.Module):
    """A field with weights that do not depend on time."""

    def __init__(self, dim=3, hidden=6):
        super().__init__()
        torch.manual_seed(2)
        self.into = torch.nn.Linear(dim, hidden).double()
        self.out = torch.nn.Linear(hidden, dim).double()

    def forward(self, t, x):
        return self.out(torch.tanh(self.into(x)))


def linear_ode(pieces=4, dim=3):
    w = torch.randn(2, dim, dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return flow.linear_chain(flow.LinearField(lambda t: w[0] + t * w[1], torch.ones(dim, dtype=torch.float64)), pieces)


CASES = {
    "linear ODE in 4 pieces": (linear_ode, 3 * (9 + 3)),
    # the local GL(3) at two inner sites; with the biases beta_k and a_{k+1} it becomes the affine group
    "link-variable net of depth 3": (lambda: flow.link_net(3, 6, 3, dtype=torch.float64), 2 * (9 + 3)),
    "tanh field, 3 Euler steps": (lambda: EulerField(Tanh(), 3), 0),
}
X = torch.randn(60, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_dimension_by_rank(name):
    make, expected = CASES[name]
    model = make()
    shapes = {n: p.shape for n, p in model.named_parameters()}
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])

    def run(values):
        parts = values.split([s.numel() for s in shapes.values()])
        named = {n: v.view(s) for (n, s), v in zip(shapes.items(), parts, strict=True)}
        return torch.func.functional_call(model, named, (X,))

    jac = torch.func.jacrev(run)(flat).reshape(-1, len(flat))
    values = torch.linalg.svdvals(jac)
    assert int((values < 1e-9 * values[0]).sum()) == expected


@pytest.mark.skipif(not hasattr(regauge, "infer"), reason="the compiler is not in this installation")
@pytest.mark.parametrize("name", CASES)
def test_dimension_by_inference(name):
    make, expected = CASES[name]
    assert regauge.infer(make().double(), (X[:5],)).dim == expected
