"""Potentials: a text such as "x**2/2 + x**4", parsed from a whitelist of Python's grammar, never evaluated as code.

The text becomes a sympy expression, so that gradient and Hessian are exact; numbers come from a walk over that
expression with the functions of any array library (numpy, torch, jax.numpy).
"""

import ast
import math
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
import sympy
from scipy.optimize import minimize
from sympy.core.function import AppliedUndef

from regauge.errors import InputError

FUNCTIONS = {
    "exp": sympy.exp,
    "log": sympy.log,
    "sqrt": sympy.sqrt,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "tanh": sympy.tanh,
    "atan": sympy.atan,
    "abs": sympy.Abs,
}
CONSTANTS = {"pi": sympy.pi, "e": sympy.E}
MAX_CHARACTERS = 1000
MAX_EXPONENT = 64
MAX_DIGITS = 300
FAR = 400.0
ARRAY_NAMES = {"Abs": "abs", "atan": "arctan"}  # sympy's name -> numpy's, where they differ


@dataclass(frozen=True)
class Potential:
    """V(x_1 .. x_D): `text` as given, `names` of the coordinates, and the exact expressions.

    Calls take an array of shape (..., D, sites), coordinates on the axis before the last, and return (..., sites);
    `gradient` returns (..., D, sites) and `hessian` (..., D, D, sites).
    """

    text: str
    names: tuple[str, ...]
    value: sympy.Expr = field(repr=False)
    slopes: tuple[sympy.Expr, ...] = field(repr=False)
    bends: tuple[tuple[sympy.Expr, ...], ...] = field(repr=False)

    @property
    def dim(self) -> int:
        return len(self.names)

    @cached_property
    def even(self) -> bool:
        """V(-x) == V(x), decided exactly."""
        flipped = {sympy.Symbol(name, real=True): -sympy.Symbol(name, real=True) for name in self.names}
        return bool(sympy.expand(self.value.subs(flipped, simultaneous=True) - self.value) == 0)

    def __call__(self, x: Any, xp: ModuleType = np) -> Any:
        return evaluate(self.value, self._coordinates(x), x, xp)

    def gradient(self, x: Any, xp: ModuleType = np) -> Any:
        at = self._coordinates(x)
        return xp.stack([evaluate(slope, at, x, xp) for slope in self.slopes], -2)

    def hessian(self, x: Any, xp: ModuleType = np) -> Any:
        at = self._coordinates(x)
        rows = [xp.stack([evaluate(bend, at, x, xp) for bend in row], -2) for row in self.bends]
        return xp.stack(rows, -3)

    def _coordinates(self, x: Any) -> dict[str, Any]:
        if x.ndim < 2 or x.shape[-2] != self.dim:
            raise InputError(
                f"potential {self.text!r} has the coordinates {', '.join(self.names)}, but the array has shape "
                f"{tuple(x.shape)}: give (..., {self.dim}, sites)"
            )
        return {name: x[..., d, :] for d, name in enumerate(self.names)}


def potential(text: str, names: tuple[str, ...] | None = None) -> Potential:
    """Parse `text`; coordinates are `names`, or the unknown names of the text in alphabetical order.

    Raises InputError for anything outside + - * / **, numbers, pi, e and the functions in FUNCTIONS, and for a
    potential that is unbounded below or does not confine (exp(-V) must be integrable, or there is no ground state to
    find).
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"potential: {len(text)} characters, at most {MAX_CHARACTERS} are read: shorten the expression"
        )
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as reason:
        raise InputError(
            f"potential {text!r} is not an expression ({reason}): write it as in 'x**2/2 + x**4'"
        ) from None
    value = _expression(tree.body, text)
    found = tuple(sorted(symbol.name for symbol in value.free_symbols))
    if names is None:
        names = found
    if not names:
        raise InputError(f"potential {text!r} has no coordinate: write it in terms of x")
    if set(found) - set(names):
        raise InputError(f"potential {text!r} has the coordinates {', '.join(found)}; expected {', '.join(names)}")
    symbols = [sympy.Symbol(name, real=True) for name in names]
    slopes = tuple(_fast(sympy.diff(value, s), symbols) for s in symbols)
    bends = tuple(tuple(_fast(sympy.diff(value, s, t), symbols) for t in symbols) for s in symbols)
    found_potential = Potential(text, names, _fast(value, symbols), slopes, bends)
    _check_bounded(found_potential, value, symbols)
    return found_potential


def _expression(node: ast.AST, text: str) -> sympy.Expr:
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number) if math.isfinite(number):
            return sympy.Integer(number) if isinstance(number, int) else sympy.Float(number, 17)
        case ast.Name(id=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.Name(id=name) if name in FUNCTIONS:
            raise InputError(f"potential {text!r}: {name} is a function: write {name}(...)")
        case ast.Name(id=name):
            return sympy.Symbol(name, real=True)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_expression(operand, text)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _expression(operand, text)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_expression(left, text), _expression(right, text), text)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as op, right=right):
            a, b = _expression(left, text), _expression(right, text)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
            if b == 0:
                raise InputError(f"potential {text!r} divides by zero")
            return a / b
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](_expression(argument, text))
    part = ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__
    raise InputError(
        f"potential {text!r}: {part!r} is not allowed: use numbers, names, + - * / **, pi, e and one argument to "
        f"{', '.join(FUNCTIONS)}"
    )


def _power(base: sympy.Expr, exponent: sympy.Expr, text: str) -> sympy.Expr:
    # 9**9**9 would hang in exact arithmetic
    if exponent.is_number and abs(float(exponent)) > MAX_EXPONENT:
        raise InputError(f"potential {text!r}: the exponent {exponent} is above {MAX_EXPONENT}")
    if (
        base.is_number
        and exponent.is_number
        and base != 0
        and abs(math.log10(abs(base)) * float(exponent)) > MAX_DIGITS
    ):
        raise InputError(f"potential {text!r}: the number {base}**{exponent} has more than {MAX_DIGITS} digits")
    return base**exponent


def _fast(value: sympy.Expr, symbols: list[sympy.Symbol]) -> sympy.Expr:
    return sympy.horner(value, *symbols) if value.is_polynomial(*symbols) and value.free_symbols else value


def evaluate(value: sympy.Expr, at: dict[str, Any], like: Any, xp: ModuleType) -> Any:
    """The expression at arrays: a fold over its tree. `like` gives the dtype and, less one axis, the shape of
    constants."""
    with np.errstate(over="ignore"):  # far out a potential may be infinite
        found = _walk(value, at, xp)
    return found if hasattr(found, "shape") and found.ndim else xp.zeros_like(like[..., 0, :]) + found


def _walk(value: sympy.Expr, at: dict[str, Any], xp: ModuleType) -> Any:
    match value:
        case sympy.Symbol(name=name):
            return at[name]
        case sympy.Number() | sympy.NumberSymbol():
            return float(value)
        case sympy.Add():
            return reduce(lambda a, b: a + b, (_walk(part, at, xp) for part in value.args))
        case sympy.Mul():
            return reduce(lambda a, b: a * b, (_walk(part, at, xp) for part in value.args))
        case sympy.Pow(base=base, exp=exponent):
            return _raise(_walk(base, at, xp), exponent, at, xp)
        case sympy.exp():
            return xp.exp(_walk(value.args[0], at, xp))
        case sympy.sign():
            return xp.sign(_walk(value.args[0], at, xp))
        case sympy.DiracDelta():
            return 0.0  # the second derivative of |x|, which is zero but for a set of measure zero
        case sympy.Function() if not isinstance(value, AppliedUndef):
            name = type(value).__name__
            return getattr(xp, ARRAY_NAMES.get(name, name))(_walk(value.args[0], at, xp))
    raise InputError(f"potential: {value} cannot be evaluated: use the functions {', '.join(FUNCTIONS)}")


def _raise(base: Any, exponent: sympy.Expr, at: dict[str, Any], xp: ModuleType) -> Any:
    if not exponent.is_Integer:
        return base ** _walk(exponent, at, xp)
    power = reduce(lambda a, b: a * b, [base] * abs(int(exponent)))
    return power if int(exponent) > 0 else 1.0 / power


def _check_bounded(v: Potential, value: sympy.Expr, symbols: list[sympy.Symbol]) -> None:
    if v.dim == 1 and value.is_polynomial(*symbols):
        poly = sympy.Poly(value, *symbols)
        lead, degree = poly.LC(), poly.degree()
        if degree % 2 or lead < 0:
            raise InputError(
                f"potential {v.text!r} is unbounded below (it goes as {lead}*{symbols[0]}**{degree} at infinity), so "
                f"the "
                f"path sum diverges: add a higher even power with a positive coefficient"
            )
        return
    _check_rays(v)


def _check_rays(v: Potential) -> None:
    # every ray: V must keep rising far out, and be finite and free of poles near the origin
    rng = np.random.default_rng(0)
    rays = rng.standard_normal((256, v.dim))
    corners = np.array(list(product((-1.0, 0.0, 1.0), repeat=min(v.dim, 5))))
    corners = np.pad(corners, ((0, 0), (0, v.dim - corners.shape[1])))
    rays = np.concatenate([rays, np.eye(v.dim), -np.eye(v.dim), corners[np.abs(corners).sum(1) > 0]])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    rays = np.concatenate([rays, _lowest_rays(v, rays)])
    near = np.linspace(0.0, 8.0, 1601)
    far = np.geomspace(8.0, FAR, 40)
    with np.errstate(all="ignore"):
        inner = v(np.moveaxis(rays[:, None, :] * near[:, None], 1, 2))
        outer = v(np.moveaxis(rays[:, None, :] * far[:, None], 1, 2))
    if np.isnan(inner).any() or np.isinf(inner).any() or np.isnan(outer).any():
        raise InputError(
            f"potential {v.text!r} is not finite everywhere (a pole, or a root or log of a negative number)"
        )
    if (outer[:, -1] < -1.0).any() and (outer[:, -1] < outer[:, 0] - 1.0).any():
        worst = rays[int(np.argmin(outer[:, -1]))]
        raise InputError(
            f"potential {v.text!r} is unbounded below (along {np.round(worst, 2).tolist()} it falls to "
            f"{outer[:, -1].min():.3g} at distance {FAR:.0f}), so the path sum diverges: add a term that rises in "
            f"that direction"
        )
    rise = outer[:, -1] - inner.min(axis=1)
    if (rise < 2 * v.dim * math.log(FAR)).any():
        raise InputError(
            f"potential {v.text!r} does not confine (it rises by {rise.min():.3g} only up to distance {FAR:.0f}), so "
            f"exp(-V) has no finite integral: add a term that rises in every direction"
        )


def _lowest_rays(v: Potential, rays: np.ndarray) -> np.ndarray:
    """Directions along which V rises least, by descent on a far sphere from the lowest of `rays`."""

    def height(u: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            return float(
                np.nan_to_num(v(FAR * (u / np.linalg.norm(u))[:, None])[0], nan=0.0, posinf=1e300, neginf=-1e300)
            )

    def flattened(u: np.ndarray) -> tuple[float, np.ndarray]:
        """asinh V, which keeps its minima and tames its size, and its gradient."""
        size = np.linalg.norm(u)
        at = FAR * (u / size)[:, None]
        with np.errstate(all="ignore"):
            value = float(np.nan_to_num(v(at)[0], nan=0.0, posinf=1e150, neginf=-1e150))
            slope = np.nan_to_num(v.gradient(at)[:, 0], nan=0.0, posinf=1e150, neginf=-1e150) / math.hypot(1.0, value)
        across = slope - (slope @ u) * u / size**2
        return math.asinh(value), FAR * across / size

    if v.dim == 1:
        return rays[:0]
    order = np.argsort([height(u) for u in rays])
    starts = np.concatenate([rays[order[:12]], np.eye(v.dim), -np.eye(v.dim), rays[:: max(1, len(rays) // 12)]])
    slid = np.array([minimize(flattened, u, jac=True, method="BFGS", options={"maxiter": 200}).x for u in starts])
    slid = np.concatenate([starts, slid / np.linalg.norm(slid, axis=1, keepdims=True)])
    best = slid[np.argsort([height(u) for u in slid])]
    apart = [u for i, u in enumerate(best) if all(np.linalg.norm(u - w) > 1e-3 for w in best[:i])][:4]
    ends = [minimize(height, u, method="Nelder-Mead", options={"xatol": 1e-10, "maxiter": 2000}).x for u in apart]
    return np.concatenate([slid, [u / np.linalg.norm(u) for u in ends]])
