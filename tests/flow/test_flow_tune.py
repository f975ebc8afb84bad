"""Tuning: never worse than its candidates, the same flow with more steps, files that come back, drop-ins."""

import json

import pytest
import torch
from torchdiffeq import odeint
from typer.testing import CliRunner

from regauge import flow
from regauge.cli.flow import app
from regauge.errors import InputError
from regauge.flow.solvers import TORCHDIFFEQ_NAMES
from regauge.flow.tune import reference

NOISE = torch.randn(2048, 2, generator=torch.Generator().manual_seed(3))
TEST = torch.randn(512, 2, generator=torch.Generator().manual_seed(4))
QUICK = flow.TuneOptions(smooth_iterations=8, step_iterations=20)


class ToData(torch.nn.Module):
    """The exact CondOT field towards four points: smooth, curved, known, in (t, x)."""

    def __init__(self):
        super().__init__()
        self.points = torch.nn.Parameter(torch.tensor([[2.0, 0.0], [0.0, 1.5], [-2.0, 0.3], [0.2, -1.0]]))

    def forward(self, t, x):
        t = (t if t.dim() else t.expand(x.shape[:-1])).unsqueeze(-1).to(x.dtype)
        # data are Gaussians of width 0.3 about the points: x_t has variance s^2 = (1-t)^2 + 0.09 t^2 about t p
        variance = (1 - t) ** 2 + 0.09 * t**2
        gap = x.unsqueeze(-2) - t.unsqueeze(-1) * self.points
        weight = torch.softmax(-gap.square().sum(-1) / (2 * variance), -1)
        mean = (weight.unsqueeze(-1) * self.points).sum(-2)
        return mean + ((-(1 - t) + 0.09 * t) / variance) * (x - t * mean)


def make():
    return ToData()


def make_with_example():
    return ToData(), (torch.tensor(0.5), torch.zeros(5, 2))


FIELD = ToData()


@pytest.fixture(scope="module")
def tuned():
    return flow.tune(FIELD, NOISE, "midpoint", 3, options=QUICK)


def rmse(end, exact):
    return float((end - exact).detach().square().sum(-1).mean().sqrt())


@pytest.fixture(scope="module")
def exact():
    return flow.exact_flow(FIELD, TEST.double(), rtol=1e-9, atol=1e-9).float().detach()


def test_tuned_is_better_on_fresh_noise(tuned, exact):
    plain = rmse(flow.integrate(FIELD, TEST, "midpoint", 3), exact)
    assert rmse(tuned.model.sample(TEST), exact) < 0.7 * plain
    table = {c.name: c.rmse for c in tuned.candidates}
    assert list(table)[:3] == ["identity", "cosine", "vp"]
    assert tuned.chosen == min(table, key=table.get) == "comoving"
    assert table["smooth"] < table["identity"]
    assert tuned.model.evaluations == 6 and all(c.evaluations == 6 for c in tuned.candidates)
    assert "<- chosen" in str(tuned)
    assert all(p.requires_grad for p in FIELD.parameters())  # the model is as it was


def test_wrapped_model_is_a_drop_in(tuned, exact):
    model = tuned.model
    assert not model.needs_dressing and model.torchdiffeq_method == "midpoint"
    end = odeint(model, TEST, model.time_grid(), method="midpoint")[-1]
    plain = odeint(FIELD, TEST, model.time_grid(), method="midpoint")[-1]
    assert rmse(end, exact) < 0.7 * rmse(plain, exact)
    # the gauge has the same flow: an adaptive solver does not see it
    fine = odeint(model, TEST.double(), torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=1e-7, atol=1e-7)[-1]
    assert rmse(fine.float(), exact) < 1e-5


def test_methods_are_those_of_torchdiffeq():
    grid = torch.linspace(0, 1, 5, dtype=torch.float64)
    for ours, theirs in TORCHDIFFEQ_NAMES.items():
        end = odeint(FIELD, TEST.double(), grid, method=theirs)[-1]
        assert torch.allclose(flow.integrate(FIELD, TEST.double(), ours, 4), end, atol=1e-12), ours
    classical = odeint(FIELD, TEST.double(), grid, method="rk4")[-1]
    assert not torch.allclose(flow.integrate(FIELD, TEST.double(), "rk4", 4), classical, atol=1e-6)


def test_flow_matching_takes_the_wrapped_model(tuned):
    solver = pytest.importorskip("flow_matching.solver").ODESolver(tuned.model.as_xt())
    theirs = solver.sample(x_init=TEST, step_size=1 / 3, method="midpoint")
    ours = odeint(tuned.model, TEST, tuned.model.time_grid(), method="midpoint")[-1]
    assert torch.allclose(theirs, ours, atol=1e-5)


def test_gauge_files(tuned, tmp_path):
    path = tmp_path / "gauge.safetensors"
    tuned.model.save(path, note={"who": "test"})
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match="exists already"):
        tuned.model.save(path)
    again = flow.load_tuned(path, FIELD)
    assert torch.equal(again.sample(TEST), tuned.model.sample(TEST))
    r = torch.tensor(0.3)
    assert torch.allclose(again(r, TEST), tuned.model(r, TEST))
    (tmp_path / "bad").write_bytes(b"not a file of ours")
    with pytest.raises(InputError, match="cannot be read"):
        flow.load_tuned(tmp_path / "bad", FIELD)
    with pytest.raises(InputError, match="states have shape"):
        again.sample(torch.zeros(4, 3))


def test_zero_parameters_are_the_plain_method():
    for name, method in flow.METHODS.items():
        sampler = flow.ComovingSampler(name, 4, torch.eye(2))
        assert torch.allclose(sampler(FIELD, TEST), flow.integrate(FIELD, TEST, method, 4), atol=1e-5)


def test_the_smooth_part_keeps_the_order_of_the_method():
    x = TEST[:64].double()
    exact = flow.exact_flow(FIELD, x, rtol=1e-11, atol=1e-11)
    for name, method in flow.METHODS.items():
        errors = []
        for steps in (48, 96):
            rng = torch.Generator().manual_seed(0)
            sampler = flow.ComovingSampler(name, steps, torch.eye(2)).double()
            with torch.no_grad():
                sampler.logits.copy_(0.3 * torch.randn(8, generator=rng))
                sampler.scales.copy_(0.3 * torch.randn(sampler.scales.shape, generator=rng))
                # the median: a state next to a watershed between two points takes far more steps to settle
                errors.append(float((sampler(FIELD, x) - exact).norm(dim=-1).median()))
            gauge = sampler.gauge()
            moved = flow.integrate(flow.transport(FIELD, gauge), x, name, steps)
            assert torch.allclose(moved, sampler(FIELD, x), atol=1e-12)  # the tables and the general law agree
        assert errors[0] / errors[1] > 0.8 * 2**method.order, name


def test_weights_of_the_future_and_of_the_distant_past_do_not_act():
    rng, x = torch.Generator().manual_seed(1), TEST[:8].double()
    sampler = flow.ComovingSampler("midpoint", 3, memory=2).double()
    late = torch.arange(7)[:, None] - torch.arange(6)
    with torch.no_grad():
        plain = sampler(FIELD, x)
        for hidden in (late <= 0, late > 2):
            sampler.weights.copy_(torch.randn(7, 6, 1, generator=rng) * hidden.unsqueeze(-1))
            assert torch.equal(sampler(FIELD, x), plain)
        sampler.weights.copy_(torch.randn(7, 6, 1, generator=rng) * (late == 2).unsqueeze(-1))
        assert not torch.allclose(sampler(FIELD, x), plain, atol=1e-3)


def test_multistep_methods_are_in_the_orbit():
    # Adams-Bashforth 2: every step adds 3/2 of this velocity and -1/2 of the one before
    steps, h = 16, 1 / 16
    sampler = flow.ComovingSampler("euler", steps).double()
    with torch.no_grad():
        for end in range(2, steps + 1):
            sampler.weights[end, 0] -= h / 2
            sampler.weights[end, end - 1] += h / 2
        x = TEST[:8].double()
        ours = sampler(FIELD, x)
        before = None
        for k in range(steps):
            slope = FIELD(torch.tensor(k * h, dtype=torch.float64), x)
            x = x + h * (slope if before is None else 1.5 * slope - 0.5 * before)
            before = slope
    assert torch.allclose(ours, x, atol=1e-12)


def test_invariants_make_the_weights_depend_on_the_state():
    # one Euler step along V |z|^2 / (2 + |z|^2) alone
    sampler = flow.ComovingSampler("euler", 1, invariants=True, unit=2.0).double()
    x = TEST[:8].double()
    with torch.no_grad():
        sampler.weights[1, 0, 0], sampler.weights[1, 0, 1] = -1, 1
        size = x.square().sum(-1, keepdim=True)
        by_hand = x + size / (2 + size) * FIELD(torch.tensor(0.0, dtype=torch.float64), x)
        assert torch.allclose(sampler(FIELD, x), by_hand, atol=1e-12)


def test_callers_may_have_gradients_off(tuned):
    with torch.no_grad():
        again = flow.tune(FIELD, NOISE, "midpoint", 3, options=QUICK)
    assert torch.equal(again.model.sample(TEST), tuned.model.sample(TEST))


def test_other_shapes_times_and_directions():
    def backwards(t, x):  # time runs from 1 to 0, images
        return -FIELD(1 - t, x.reshape(len(x), 2)).reshape(x.shape)

    noise = NOISE[:128].reshape(-1, 1, 1, 2)
    options = flow.TuneOptions(smooth_iterations=5, step_iterations=5, batch=32)
    tuned = flow.tune(backwards, noise, "euler", 4, start=1.0, end=0.0, options=options)
    end = tuned.model.sample(noise)
    exact = flow.exact_flow(FIELD, NOISE[:128]).detach()
    assert end.shape == noise.shape
    plain = rmse(flow.integrate(FIELD, NOISE[:128], "euler", 4), exact)
    assert rmse(end.reshape(-1, 2), exact) < plain
    grid = tuned.model.time_grid()
    stateless = odeint(tuned.model, noise, grid, method="euler")[-1]
    assert grid[0] == 1.0 and rmse(stateless.reshape(-1, 2), exact) < plain


def test_probability_flows_of_noise_predicting_models():
    schedule = flow.VariancePreserving(root_time=False)

    def epsilon(r, x):  # E[noise | x] for Gaussians of width 0.3 about the points
        alpha, sigma = schedule.at(r)
        variance = sigma**2 + 0.09 * alpha**2
        gap = x.unsqueeze(-2) - alpha * FIELD.points.detach()
        weight = torch.softmax(-gap.square().sum(-1) / (2 * variance), -1)
        return sigma * (x - alpha * (weight @ FIELD.points.detach())) / variance

    field = flow.EpsilonField(epsilon, schedule)
    options = flow.TuneOptions(smooth_iterations=4, step_iterations=6)
    tuned = flow.tune(field, NOISE[:1024], "euler", 6, start=0.0, end=0.95, options=options)
    exact = flow.exact_flow(field, TEST, 0.0, 0.95)
    assert rmse(tuned.model.sample(TEST), exact) < 0.3 * rmse(flow.integrate(field, TEST, "euler", 6, 0.0, 0.95), exact)


def test_reference_refuses_what_it_cannot_resolve():
    with pytest.raises(InputError, match="not settled"):
        reference(lambda t, x: 60 * torch.sin(400 * (x + t)), NOISE[:8], 1e-9, last=64)
    with pytest.raises(InputError, match="NaN"):
        reference(lambda t, x: x / 0 * 0, NOISE[:8], 1e-5)
    with pytest.raises(InputError, match="too few"):
        flow.tune(FIELD, NOISE[:8])
    with pytest.raises(InputError, match="unknown"):
        flow.tune(FIELD, NOISE, "leapfrog")
    with pytest.raises(InputError, match=r"fails on states of shape \(2, 3\)"):
        flow.tune(FIELD, NOISE[:, :1].expand(-1, 3))
    with pytest.raises(InputError, match=r"returns shape \(2, 1\)"):
        flow.tune(lambda t, x: x[:, :1], NOISE)


def test_few_evaluations_are_searched_from_many_starts():
    short = dict(smooth_iterations=4, step_iterations=15, fitted=256)
    one, many = (
        flow.tune(FIELD, NOISE, "midpoint", 1, options=flow.TuneOptions(**short, starts=starts)) for starts in (1, 4)
    )
    # zero is among the starts; what is compared is on other noise than the choice of the start
    assert many.candidates[-1].name == "comoving" and many.candidates[-1].rmse < 1.05 * one.candidates[-1].rmse
    seen = []
    flow.tune(FIELD, NOISE[:64], "midpoint", 1, options=flow.TuneOptions(**short), progress=lambda *at: seen.append(at))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1] == seen[-1][2] == 2 * 4 + 16 * 10 + 5


def test_command_line(tmp_path, monkeypatch):
    runner, out = CliRunner(), tmp_path / "g.safetensors"
    here = f"{__name__}:make_with_example"
    common = [
        "tune",
        here,
        "--solver",
        "euler",
        "--steps",
        "4",
        "--samples",
        "64",
        "--iterations",
        "3",
        "--out",
        str(out),
    ]
    result = runner.invoke(app, [*common, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["evaluations"] == 4 and data["chosen"] in {c["name"] for c in data["candidates"]}
    assert flow.load_tuned(out, FIELD).sample(TEST).shape == TEST.shape
    assert "exists" in str(runner.invoke(app, common).exception)
    shown = runner.invoke(app, ["show", str(out)], catch_exceptions=False)
    assert "euler, 4 steps, 4 evaluations" in shown.stdout
    missing = runner.invoke(app, ["tune", f"{__name__}:make", "--out", str(tmp_path / "h")])
    assert isinstance(missing.exception, InputError) and "--shape" in str(missing.exception)
    unknown = runner.invoke(app, ["tune", "no.such.module:thing", "--out", str(tmp_path / "h")])
    assert isinstance(unknown.exception, InputError)
