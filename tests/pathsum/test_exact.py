"""Oracles against closed forms, against each other, and against independent diagonalisation."""

import numpy as np
import pytest
from scipy.integrate import quad

from regauge.errors import CheckError, InputError
from regauge.pathsum import field_lattice, lattice_exact, path_lattice, potential, spectrum

FACTS = [  # harmonic-oscillator basis of 300 states: energies, <x^2>
    ("x**2/2+0.1*x**4", (0.559146327184, 1.769502643949, 3.138624308498), 0.412525368384),
    ("x**2/2+x**4", (0.803770651234, 2.737892268009, 5.179291687639), 0.257149821443),
    ("x**4", (0.667986259156, 2.393644016485, 4.696795386864), 0.287337566762),
    ("(x**2-1)**2", (0.869580918935, 1.661428998260, 3.543794617751), 0.578998282587),
]


def oscillator_levels(coefficients, levels, size=220, mass=1.0, omega=2.0):
    """Energies of p^2/2m + sum c_n x^n in the basis of an oscillator: matrix algebra only, no grid."""
    n = np.arange(size + 12)
    lower = np.diag(np.sqrt(n[1:]), 1)
    x = (lower + lower.T) / np.sqrt(2 * mass * omega)
    p2 = -((lower - lower.T) @ (lower - lower.T)) * mass * omega / 2
    h = p2 / (2 * mass) + sum(c * np.linalg.matrix_power(x, k) for k, c in coefficients.items())
    return np.linalg.eigvalsh(h[:size, :size])[:levels]


@pytest.mark.parametrize(("text", "energies", "square"), FACTS)
def test_spectrum_to_ten_digits(text, energies, square):
    found = spectrum(potential(text))
    assert np.allclose(found.energies, energies, rtol=0, atol=2e-11)
    assert found.square[0] == pytest.approx(square, abs=2e-11) and found.error < 1e-10


@pytest.mark.parametrize("mass", [0.5, 1.0, 3.0])
def test_spectrum_against_an_oscillator_basis(mass):
    found = spectrum(potential("x**4/3 - x**2 + x/4"), (mass,), levels=4)
    expected = oscillator_levels({4: 1 / 3, 2: -1.0, 1: 0.25}, 4, mass=mass)
    assert np.allclose(found.energies, expected, rtol=0, atol=1e-9)


def test_separable_and_rotated_potentials_in_two_and_three_dimensions():
    apart = spectrum(potential("x**2/2+x**4+2*y**2"), (1.0, 1.0))
    assert apart.energies[0] == pytest.approx(0.803770651234 + 1.0, abs=1e-9)
    coupled = spectrum(potential("x**2 + y**2 + z**2 + x*y"), (1.0, 1.0, 1.0), levels=2)
    frequencies = np.sqrt(np.linalg.eigvalsh([[2, 1, 0], [1, 2, 0], [0, 0, 2]]))
    assert coupled.energies[0] == pytest.approx(frequencies.sum() / 2, abs=1e-6)
    assert coupled.gap == pytest.approx(frequencies[0], abs=1e-6)


def test_a_tiny_splitting_is_resolved():
    found = spectrum(potential("(x**2-9)**2/8"))
    assert 0 < found.gap < 1e-6 and found.mean[0] == pytest.approx(0, abs=1e-12)


LATTICE = [  # sites, ground, gap, <x^2>, virial energy of x^2/2 + x^4 at beta 10
    (64, 0.7989183271, 1.9178238759, 0.2554674668, 0.7895213927),
    (128, 0.8025271098, 1.9299278283, 0.2567247184, 0.8000615136),
    (256, 0.8034577215, 1.9330650966, 0.2570432650, 0.8028332537),
]


@pytest.mark.parametrize(("sites", "ground", "gap", "square", "energy"), LATTICE)
def test_transfer_matrix_facts(sites, ground, gap, square, energy):
    found = lattice_exact(path_lattice(10, sites), potential("x**2/2+x**4"))
    assert np.allclose(
        [found.ground, found.gap, found.square[0], found.energy], [ground, gap, square, energy], atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("ends", ["periodic", "open"])
@pytest.mark.parametrize("mass", [1.0, 2.5])
def test_harmonic_lattice_is_a_gaussian_integral(ends, mass):
    lattice = path_lattice(4.0, 24, (mass,), ends)
    found = lattice_exact(lattice, potential("0.7*(x-0.4)**2"))
    rates = mass * lattice.rates() + 1.4
    precision = lattice.volume * (lattice.modes() * rates) @ lattice.modes().T
    covariance = np.linalg.inv(precision)
    assert found.square[0] == pytest.approx(np.diag(covariance).mean() + 0.16, abs=1e-10)
    assert found.mean[0] == pytest.approx(0.4, abs=1e-10)
    expected = 0.5 * (24 * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1])
    assert found.log_z == pytest.approx(expected, abs=1e-9)
    assert np.allclose(found.correlator[0], covariance[0, :13] + 0.16, atol=1e-10)


def test_two_sites_against_quadrature():
    lattice, v = path_lattice(1.0, 2), potential("x**4 + x")
    found = lattice_exact(lattice, v)
    eps = 0.5

    def weight(x, y):  # both links of the ring join the same two sites
        return np.exp(-((x - y) ** 2) / eps - eps * (x**4 + x + y**4 + y))

    def inner(f):
        return quad(lambda x: quad(lambda y: f(x) * weight(x, y), -4, 4, epsabs=1e-12)[0], -4, 4, epsabs=1e-11)[0]

    z = inner(lambda x: 1.0)
    assert found.log_z == pytest.approx(np.log(z), abs=1e-9)
    assert found.square[0] == pytest.approx(inner(lambda x: x * x) / z, abs=1e-9)
    assert found.mean[0] == pytest.approx(inner(lambda x: x) / z, abs=1e-9)


def test_two_coordinates_and_a_field_of_two_points():
    v = potential("x**2/2 + y**2 + x**2*y**2/4")
    pair = lattice_exact(path_lattice(4.0, 16, (1.0, 2.0)), v, 1e-9)
    apart = lattice_exact(path_lattice(4.0, 16, (1.0, 2.0)), potential("x**2/2+x**4+y**2+y**4"), 1e-9)
    one = lattice_exact(path_lattice(4.0, 16), potential("x**2/2+x**4"))
    two = lattice_exact(path_lattice(4.0, 16, (2.0,)), potential("x**2+x**4"))
    assert pair.error < 1e-9
    assert apart.log_z == pytest.approx(one.log_z + two.log_z, abs=1e-8)
    assert np.allclose(apart.square, [one.square[0], two.square[0]], atol=1e-8)
    free = lattice_exact(field_lattice((12, 2), 0.5), potential("x**2"), 1e-9)
    lattice = field_lattice((12, 2), 0.5)
    assert free.square[0] == pytest.approx((1 / (lattice.rates() + 2)).mean() / lattice.volume, abs=1e-8)


def test_refusals():
    with pytest.raises(CheckError, match="two grids differ"):
        spectrum(potential("abs(x)"))
    with pytest.raises(InputError, match="masses"):
        spectrum(potential("x**2"), (1.0, 1.0))
    with pytest.raises(InputError, match="grid points"):
        lattice_exact(path_lattice(1.0, 32, (1.0,) * 4), potential("a**2+b**2+c**2+d**2"))
    with pytest.raises(InputError, match="masses"):
        lattice_exact(path_lattice(1.0, 8), potential("x**2+y**2"))
