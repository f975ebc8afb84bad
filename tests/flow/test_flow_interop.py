"""Other solver libraries integrate a transported field as it is, each against the flow of the original one."""

import flow_fields as fields
import pytest
import torch
from torchdiffeq import odeint, odeint_adjoint

from regauge import flow
from regauge.errors import InputError

FIELD, X = fields.Net().requires_grad_(False), fields.states()
EXACT = flow.exact_flow(FIELD, X, rtol=1e-10, atol=1e-10)
GAUGE = flow.Gauge(
    flow.ScaleDiffeo(lambda r: torch.sin(torch.pi * r)), flow.ShiftClock(2.5)
)  # the identity at both ends
MOVED = flow.transport(FIELD, GAUGE)
TIMES = torch.tensor([0.0, 1.0], dtype=torch.float64)


def test_the_gauge_is_not_trivial():
    half = torch.tensor(0.5, dtype=torch.float64)
    assert float((MOVED(half, X) - FIELD(half, X)).abs().max()) > 0.1


@pytest.mark.parametrize("solve", [odeint, odeint_adjoint])
def test_torchdiffeq(solve):
    assert torch.allclose(solve(MOVED, X, TIMES, rtol=1e-9, atol=1e-9)[-1], EXACT, atol=1e-7)


def test_flow_matching():
    solver = pytest.importorskip("flow_matching.solver").ODESolver(flow.to_xt(MOVED))
    end = solver.sample(x_init=X, step_size=None, method="dopri5", rtol=1e-9, atol=1e-9)
    assert torch.allclose(end, EXACT, atol=1e-5)  # its time grid is in single precision


def test_flow_matching_models_are_fields():
    wrapper = pytest.importorskip("flow_matching.utils").ModelWrapper

    class Theirs(wrapper):  # model(x, t): one time per sample
        def forward(self, x, t, **extras):
            assert t.shape == (len(x),)
            return torch.stack([FIELD(s, row) for s, row in zip(t, x, strict=True)])

    field = flow.from_xt(Theirs(torch.nn.Identity()))
    r = torch.tensor(0.3, dtype=torch.float64)
    assert torch.allclose(flow.transport(field, GAUGE)(r, X), MOVED(r, X), atol=1e-12)


def test_torchdyn():
    core = pytest.importorskip("torchdyn.core")
    model = core.NeuralODE(flow.to_torchdyn(MOVED), solver="dopri5", atol=1e-9, rtol=1e-9)
    _, path = model(X, TIMES)
    assert torch.allclose(path[-1], EXACT, atol=1e-7)


def test_diffrax():
    diffrax, jax = pytest.importorskip("diffrax"), pytest.importorskip("jax")
    with jax.enable_x64(True):
        term, start = diffrax.ODETerm(flow.to_jax(MOVED)), jax.numpy.asarray(X.numpy())
        control = diffrax.PIDController(rtol=1e-9, atol=1e-9)
        found = diffrax.diffeqsolve(term, diffrax.Tsit5(), 0.0, 1.0, 0.1, start, stepsize_controller=control)
        assert torch.allclose(torch.tensor(jax.device_get(found.ys[-1])), EXACT, atol=1e-7)
        # sample by sample too
        rows = jax.vmap(lambda y: flow.to_jax(FIELD)(0.25, y))(start)
    assert torch.allclose(torch.tensor(jax.device_get(rows)), FIELD(torch.tensor(0.25).double(), X), atol=1e-12)


@pytest.mark.slow
def test_tuned_models_are_fields_of_diffrax_too():
    diffrax, jax = pytest.importorskip("diffrax"), pytest.importorskip("jax")
    options = flow.TuneOptions(smooth_iterations=8, comoving=False)
    noise = fields.states(512, seed=9)
    tuned = flow.tune(FIELD, noise, "euler", 4, options=options)
    plain = flow.integrate(FIELD, X, "euler", 4)
    ours = flow.integrate(flow.transport(FIELD, tuned.model.gauge), X, "euler", 4).detach()
    with jax.enable_x64(True):
        term, start = diffrax.ODETerm(flow.to_jax(tuned.model)), jax.numpy.asarray(X.numpy())
        found = diffrax.diffeqsolve(term, diffrax.Euler(), 0.0, 1.0, 1 / 4, start, throw=True)
        end = torch.tensor(jax.device_get(found.ys[-1]))
    assert torch.allclose(end, ours, atol=1e-10)
    assert float((end - EXACT).norm()) < 0.8 * float((plain - EXACT).norm())


def test_jax_missing_is_said(monkeypatch):
    import builtins

    real = builtins.__import__

    def without_jax(name, *args, **kwargs):
        if name == "jax":
            raise ImportError("no jax")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_jax)
    with pytest.raises(InputError, match="diffrax"):
        flow.to_jax(FIELD)
