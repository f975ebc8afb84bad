"""The compiler sees the lattice: dimensions by Jacobian rank, and by inference where it is there."""

import pytest
import torch

import regauge
from regauge import flow
from regauge.flow.attention import Head
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


class Attention(torch.nn.Module):
    """One head on sequences of states (batch, n, dm)."""

    def __init__(self, scores):
        super().__init__()
        rng = torch.Generator().manual_seed(6)
        for name, shape in {"query": (4, 3), "key": (4, 3), "value": (4, 2), "output": (2, 4)}.items():
            setattr(self, name, torch.nn.Parameter(torch.randn(*shape, generator=rng, dtype=torch.float64)))
        self.scores = scores

    def forward(self, x):
        keys = (x @ self.key).transpose(-1, -2)
        product = (x @ self.query) @ keys
        weights = torch.softmax(product, -1) if self.scores == "softmax" else torch.relu(product)
        return weights @ (x @ self.value) @ self.output


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


SEQUENCES = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("scores", "expected"), [("softmax", 9 + 4), ("relu", 9 + 4 + 1)])
def test_attention_is_two_lines_and_a_scale(scores, expected):
    # GL(dk) on queries and keys, GL(dv) on values and output; ReLU scores let one scale pass from scores to values
    model = Attention(scores)
    gauge = regauge.infer(model, (SEQUENCES,))
    assert gauge.dim == expected
    state = gauge.sample(2).apply(model.state_dict())
    head, moved = (
        Head(*(s[k] for k in ("query", "key", "value", "output")), scores) for s in (model.state_dict(), state)
    )
    assert torch.allclose(moved(SEQUENCES[0]), head(SEQUENCES[0]), atol=1e-10)
    # the element is the lift's: A from queries and keys, B from values and output, and what is left is the scale
    inner = torch.linalg.lstsq(head.query, moved.query).solution
    outer = torch.linalg.lstsq(head.value, moved.value).solution
    product = (moved.query @ moved.key.T) / (head.query @ head.key.T)
    scale = float(product[0, 0])
    assert torch.allclose(product, torch.full_like(product, scale), rtol=1e-8) and scale > 0
    assert (scores == "relu") or scale == pytest.approx(1.0)
    by_hand = (
        head.transformed(inner / scale, outer * scale, scale) if scores == "relu" else head.transformed(inner, outer)
    )
    for ours, theirs in ((by_hand.query, moved.query), (by_hand.key, moved.key), (by_hand.value, moved.value)):
        assert torch.allclose(ours, theirs, atol=1e-8)
    assert torch.allclose(by_hand.output, moved.output, atol=1e-8)
