"""The parser, its derivatives, and what it refuses."""

import numpy as np
import pytest
import torch

from regauge.errors import InputError
from regauge.pathsum import potential

TEXTS = [
    "x**2/2 + x**4",
    "(x**2-2)**2/4",
    "cosh(x) - x/3",
    "x**2*exp(-x**2) + x**2",
    "sqrt(1+x**2) + sin(3*x)",
    "abs(x)**3",
]


@pytest.mark.parametrize("text", TEXTS)
def test_values_are_those_of_python(text):
    v = potential(text)
    x = np.linspace(-2.1, 1.9, 17)
    names = {name: getattr(np, name) for name in ("cosh", "exp", "sqrt", "sin", "abs")}
    assert np.allclose(v(x[None]), eval(text, {"__builtins__": {}}, names | {"x": x}), rtol=1e-13)


@pytest.mark.parametrize("text", TEXTS)
def test_gradient_and_hessian_are_differences(text):
    v, x, h = potential(text), np.linspace(-2.1, 1.9, 17), 1e-5
    assert np.allclose(v.gradient(x[None])[0], (v(x[None] + h) - v(x[None] - h)) / (2 * h), rtol=1e-7, atol=1e-7)
    bend = (v.gradient(x[None] + h)[0] - v.gradient(x[None] - h)[0]) / (2 * h)
    assert np.allclose(v.hessian(x[None])[0, 0], bend, rtol=1e-6, atol=1e-6)


def test_several_coordinates_against_autograd():
    v = potential("a**2 + b**4/3 + a*b*c + c**2*exp(b) + c**4 + a**4")
    x = torch.randn(5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (slope,) = torch.autograd.grad(v(x, torch).sum(), x)
    assert v.names == ("a", "b", "c")
    assert np.allclose(v.gradient(x.detach().numpy()), slope, rtol=1e-12)
    assert np.allclose(v(x.detach().numpy()), v(x, torch).detach(), rtol=1e-13)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x**2 - x**4", "unbounded below"),
        ("x**3", "unbounded below"),
        ("-x**2", "unbounded below"),
        ("x**2 - y**4", "unbounded below"),
        ("x**2 + y**2 - 3*x*y", "unbounded below"),
        ("x**2 - exp(x)", "unbounded below"),
        ("exp(-x**2)", "does not confine"),
        ("(x-y)**2", "does not confine"),
        ("sin(x)", "does not confine"),
        ("1/x", "not finite"),
        ("log(x)", "not finite"),
        ("3", "no coordinate"),
        ("", "not an expression"),
        ("x +", "not an expression"),
        ("__import__('os').system('ls')", "not allowed"),
        ("x.real", "not allowed"),
        ("(lambda y: y)(x)", "not allowed"),
        ("[x for x in (1,)][0]", "not allowed"),
        ("x if x > 0 else 1", "not allowed"),
        ("exp(x, x)", "not allowed"),
        ("exp", "is a function"),
        ("x**2 + True", "not allowed"),
        ("x**2 + 'a'", "not allowed"),
        ("x**2 + 1j", "not allowed"),
        ("x**9**9**9", "exponent"),
        ("x**2 + ((((9**64)**64)**64)**64)**64", "digits"),
        ("(x - 0.37*y)**2", "does not confine"),
        ("x**2*y**2", "does not confine"),
        ("(x-3)**2*(y**2+1)", "does not confine"),  # flat along x = 3, which is no ray
        ("(x-y**2)**2 - y", "unbounded below"),  # along a parabola
        ("x**4 - x**2*y**4 + y**6", "unbounded below"),
        ("(x*y-1)**2 + (y-z)**2", "does not confine"),
        ("x**2/0", "divides by zero"),
        ("x**2+" * 400 + "x**2", "characters"),
    ],
)
def test_refusals_name_the_reason(text, words):
    with pytest.raises(InputError, match=words):
        potential(text)


def test_wrong_shape_is_named():
    with pytest.raises(InputError, match=r"coordinates x, y"):
        potential("x**2 + y**2")(np.zeros((3, 1, 4)))


def test_coordinates_can_be_named():
    assert potential("y**2 + x**4", ("y", "x")).gradient(np.array([[3.0], [1.0]])).ravel().tolist() == [6.0, 4.0]
    with pytest.raises(InputError, match="expected y"):
        potential("x**2", ("y",))
    with pytest.raises(InputError, match="does not confine"):
        potential("x**2", ("x", "y"))


def test_even():
    assert potential("(x**2-2)**2/4").even and potential("cosh(x)").even and potential("(x+y)**2+y**4+x**4").even
    assert not potential("x**4 + x**3").even
