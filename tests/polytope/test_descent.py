"""Gradient flow: conserved charges, falling loss, and the selection rule they imply."""

import numpy as np
import pytest

from regauge.errors import InputError
from regauge.polytope import charged, descend, describe, extract, reduce, settle, train


def start(units, dim, positive, seed, charge=0.09):
    rng = np.random.default_rng(seed)
    sign = np.where(np.arange(units) < positive, 1.0, -1.0)
    return charged(sign * rng.uniform(0.4, 0.8, units), rng.normal(size=(units, dim)), charge)


@pytest.mark.parametrize("activation", ["abs", "relu", "leaky"])
@pytest.mark.parametrize("charge", [0.09, 0.0, -0.2])
def test_charges_are_conserved_and_the_loss_falls(activation, charge):
    from regauge.polytope.population import loss

    flow = descend(*start(4, 3, 4, 0, charge), activation, time=30.0)
    alive = ~np.isfinite(flow.died)
    assert alive.any()
    assert np.abs(flow.charges[:, alive] - charge).max() < 1e-7
    values = [loss(a, w, flow.slope) for a, w in zip(flow.a, flow.w, strict=True)]
    assert (np.diff(values) < 1e-10).all() and values[-1] < values[0]


@pytest.mark.parametrize(("dim", "units"), [(2, 4), (3, 6)])
def test_positive_units_at_the_start_select_the_body(dim, units):
    """Of positive charge: n positive units end at the minimum of n units, whatever the others do on the way."""
    for positive in range(1, units + 1):
        best = train(dim, positive).rms
        for seed in range(2):
            flow = descend(*start(units, dim, positive, seed), time=3000.0)
            assert flow.rms == pytest.approx(best, abs=1e-4)
            alive = ~np.isfinite(flow.died)
            assert (np.sign(flow.a[-1, alive]) == np.sign(flow.a[0, alive])).all()


def test_the_selected_polytopes_by_name():
    for positive, title in {3: "octahedron", 4: "cuboctahedron", 6: "icosidodecahedron"}.items():
        flow = descend(*start(6, 3, positive, 5), time=3000.0)
        left = reduce(flow.network, dead=1e-2, parallel=0.1)
        assert len(left.out) == positive and (left.out > 0).all()
        assert describe(extract(settle(left).network, tolerance=1e-6)) == title


def test_negative_charge_lets_signs_change():
    """Without positive charge a_i passes zero: all four negative units turn and find the octagon."""
    flow = descend(*start(4, 2, 0, 1, charge=-0.2), time=3000.0)
    assert (flow.a[0] < 0).all() and (flow.a[-1] > 0).all()
    assert flow.rms == pytest.approx(train(2, 4).rms, abs=1e-4)


def test_a_dying_unit_rests_at_the_cone_point():
    flows = [descend(*start(4, 2, 1, seed), time=50.0) for seed in range(3)]
    died = [np.isfinite(flow.died) for flow in flows]
    assert any(d.any() for d in died)
    for flow, dead in zip(flows, died, strict=True):
        assert (flow.w[-1, dead] == 0).all() and not dead[0]
        assert len(flow.network.out) == (~dead).sum()


def test_unfit_input_is_refused():
    with pytest.raises(InputError, match="charge"):
        charged([0.1, 1.0], np.eye(2), 0.09)
    with pytest.raises(InputError, match="output weights"):
        descend([1.0], np.eye(2))
