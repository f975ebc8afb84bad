"""Sound: a sampled element of the gauge leaves the function unchanged.

    f(g . theta) = f(theta)   for finite g of the whole group,

in float64 with upcasts lifted (to `rtol`), and in the checkpoint's own dtype against a noise floor measured on the same
model: what repeated evaluation, exact permutations, and rounding of the transformed weights do to it anyway.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regauge.check.generic import double_copy, widened
from regauge.check.lift import lifted
from regauge.check.observe import Observe, run
from regauge.errors import CheckError, InputError

MARGIN = 10.0  # in the checkpoint's dtype the error may be this many times the floor
CONTROL = 1e3  # a perturbation that is no symmetry must move the function this many times further than rtol

State = dict[str, Tensor]
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Soundness:
    """Relative errors max |f(g theta) - f(theta)| / max |f(theta)|, the largest over outputs and seeds.

    `error` in float64; `native` in the model's dtype against `floor`. `control` is the float64 change under a random
    perturbation of the same size as g theta - theta in every tensor: it must be large, or the check could not fail.
    `move` is that size relative to theta, in the largest norm over tensors.
    """

    error: float
    rtol: float
    native: float
    floor: float
    dtype: str
    control: float
    move: float
    worst: str
    seeds: tuple[int, ...]
    moved: int
    parameters: int

    @property
    def ok(self) -> bool:
        """Whether both bounds hold and the control did what it should."""
        return self.error <= self.rtol and self.native <= MARGIN * self.floor and self.sensitive

    @property
    def sensitive(self) -> bool:
        """Whether the control moved the function (vacuously true if the element moves nothing)."""
        return self.moved == 0 or self.control > CONTROL * self.rtol

    def raise_if_failed(self) -> Soundness:
        """Return self, or raise CheckError naming the bound that broke and the worst output."""
        if not self.ok:
            raise CheckError(str(self))
        return self

    def __str__(self) -> str:
        mark = {True: "holds", False: "FAILS"}
        lines = [
            f"sound: {'the function does not change' if self.ok else 'NOT proved'} "
            f"({len(self.seeds)} sampled elements, {self.moved} of {self.parameters} tensors move, "
            f"by up to {self.move:.1e} of their size)",
            f"  float64   error {self.error:.1e}  <= {self.rtol:.0e}  {mark[self.error <= self.rtol]}",
            f"  {self.dtype:9} error {self.native:.1e}  <= {MARGIN:.0f} x {self.floor:.1e} (noise floor)  "
            f"{mark[self.native <= MARGIN * self.floor]}",
            f"  control   error {self.control:.1e}  for a random move of the same size  "
            f"{'as it should' if self.sensitive else 'TOO SMALL: this check could not fail'}",
        ]
        if not self.ok:
            lines.append(f"  worst output: {self.worst}")
        return "\n".join(lines)

    __repr__ = __str__


def sound(
    model: nn.Module,
    args: tuple,
    gauge: Any,
    kwargs: dict | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    observe: Observe = None,
    rtol: float = 1e-9,
    progress: Callable[[str], None] | None = None,
) -> Soundness:
    """Apply sampled elements of `gauge` to the model's weights and compare the observed outputs.

    The model itself is not touched; ties and train/eval mode are kept. `observe` as in `infer`. `progress` is told
    each step, for models on which one step takes long.

    Raises InputError for a model on meta, and for weights or outputs that are not finite. Failing is a value: see
    `Soundness.raise_if_failed`.
    """
    if not seeds:
        raise ValueError("seeds is empty: pass at least one")
    tell = progress or (lambda _: None)
    kwargs = kwargs or {}
    twin = double_copy(model).requires_grad_(False)
    theta = _snapshot(twin)
    _require_finite(theta)
    inputs = widened((args, kwargs))
    base = _evaluate(twin, inputs, observe, lift=True)
    error, control, move, moved, worst = 0.0, math.inf, 0.0, 0, next(iter(base))
    for seed in seeds:
        tell(f"float64, seed {seed}")
        image = _checked(gauge.sample(seed).apply(theta), theta)
        here, where = _distance(_evaluate(_loaded(twin, image), inputs, observe, lift=True), base)
        if not here <= error:
            error, worst = here, where
        shifts = {n: image[n].double() - theta[n].double() for n in theta if not torch.equal(image[n], theta[n])}
        moved = max(moved, len(shifts))
        move = max([move, *(float(d.norm() / theta[n].double().norm().clamp_min(1e-300)) for n, d in shifts.items())])
        if shifts:
            off = _loaded(twin, {**theta, **_scrambled(theta, shifts, seed)})
            control = min(control, _distance(_evaluate(off, inputs, observe, lift=True), base)[0])
        _loaded(twin, theta)
    tell("own dtype")
    native, floor, dtype, culprit = _native(model, (args, kwargs), gauge, observe, seeds, tell)
    if error <= rtol and native > MARGIN * floor:
        worst = culprit
    return Soundness(
        error, rtol, native, floor, dtype, control if moved else 0.0, move, worst, tuple(seeds), moved, len(theta)
    )


def _native(
    model: nn.Module, inputs: tuple, gauge: Any, observe: Observe, seeds: Sequence[int], tell: Callable[[str], None]
) -> tuple[float, float, str, str]:
    """(error, floor, dtype, worst output) in the model's own dtype."""
    twin = copy.deepcopy(model).requires_grad_(False)
    theta = _snapshot(twin)
    floats = [t.dtype for t in twin.parameters() if t.is_floating_point()]
    dtype = max(floats, key=lambda d: torch.finfo(d).eps, default=torch.get_default_dtype())
    evaluate = lambda state: _evaluate(_loaded(twin, state), inputs, observe, lift=False)  # noqa: E731
    base = evaluate(theta)
    floor = max(_distance(evaluate(theta), base)[0], float(torch.finfo(dtype).eps))
    permute = getattr(gauge, "sample_permutation", None)
    error, worst = 0.0, next(iter(base))
    for seed in seeds:
        tell(f"{_short(dtype)}, seed {seed}")
        if permute is not None:
            floor = max(floor, _distance(evaluate(_checked(permute(seed).apply(theta), theta)), base)[0])
        floor = max(floor, _distance(evaluate(_reround(theta, seed)), base)[0])
        image = _checked(gauge.sample(seed).apply(theta), theta)
        there = evaluate(image)
        floor = max(floor, _distance(evaluate(_reround(image, seed)), there)[0])  # of numbers that may be larger
        here, where = _distance(there, base)
        if not here <= error:
            error, worst = here, where
    return error, floor, _short(dtype), worst


def _snapshot(model: nn.Module) -> State:
    """A copy of the state in which tied names still share memory."""
    copies: dict[tuple, Tensor] = {}
    return {n: copies.setdefault(_place(t), t.detach().clone()) for n, t in model.state_dict().items()}


def _place(tensor: Tensor) -> tuple:
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else (id(tensor),)


def _reround(theta: State, seed: int) -> State:
    """Every twelfth float moved by one unit in its last place.

    A product that is stored anew errs by at most half a unit, uniformly: its variance is a twelfth of a unit squared.
    """
    generator = torch.Generator().manual_seed(seed)
    images: dict[tuple, Tensor] = {}
    for tensor in theta.values():
        if tensor.is_floating_point() and _place(tensor) not in images:
            draw = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
            step = (draw < 1 / 24).double() - (draw > 23 / 24).double()
            # 3/4 eps relative is between 3/4 and 3/2 units of the last place, and rounds to one
            factor = 1 + 0.75 * torch.finfo(tensor.dtype).eps * step
            images[_place(tensor)] = (tensor.double() * factor).to(tensor.dtype)
    return {n: images.get(_place(t), t) for n, t in theta.items()}


def _scrambled(theta: State, shifts: State, seed: int) -> State:
    """For every float tensor that moves: theta plus the entries of its move, in random order and with random signs.

    Positive tensors (gains, variances) are moved by a factor, so that they stay positive.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    images: dict[tuple, Tensor] = {}
    for name, shift in shifts.items():
        tensor, flat = theta[name], shift.reshape(-1)
        if not tensor.is_floating_point() or _place(tensor) in images:
            continue
        order = torch.randperm(len(flat), generator=generator).to(flat.device)
        signs = torch.randint(0, 2, (len(flat),), generator=generator).to(flat) * 2 - 1
        step = (flat[order] * signs).reshape(shift.shape)
        positive = bool((tensor > 0).all())
        images[_place(tensor)] = tensor * torch.exp(step / tensor.max()) if positive else tensor + step
    return {n: images[_place(theta[n])] for n in shifts if _place(theta[n]) in images}


def _evaluate(model: nn.Module, inputs: tuple, observe: Observe, *, lift: bool) -> Outputs:
    args, kwargs = copy.deepcopy(inputs)
    with torch.no_grad():
        if not lift:
            return run(model, args, kwargs, observe)
        with lifted():
            return run(model, args, kwargs, observe)


def _loaded(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The model with this state, loaded strictly: a missing key or another shape is an error of the gauge."""
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise CheckError(f"the transformed state does not fit the model: {error}") from error
    return model


def _checked(image: State, theta: State) -> State:
    """The image itself, after its keys, shapes, dtypes and ties are compared with theta's."""
    if image.keys() != theta.keys():
        raise CheckError(f"apply changed the keys: {sorted(image.keys() ^ theta.keys())[:5]}")
    for name, tensor in theta.items():
        if image[name].shape != tensor.shape or image[name].dtype != tensor.dtype:
            raise CheckError(
                f"apply changed `{name}` from {tuple(tensor.shape)} {tensor.dtype} to "
                f"{tuple(image[name].shape)} {image[name].dtype}"
            )
    first: dict[tuple, str] = {}
    for name, tensor in theta.items():
        twin = first.setdefault(_place(tensor), name)
        if twin != name and not torch.equal(image[name], image[twin]):
            raise CheckError(f"apply broke the tie of `{name}` and `{twin}`")
    return image


def _distance(outputs: Outputs, base: Outputs) -> tuple[float, str]:
    """The largest relative error and its output; NaN counts as infinite."""
    if outputs.keys() != base.keys():
        raise CheckError("the outputs changed their structure under the transformation")
    errors = {}
    for name, reference in base.items():
        finite = torch.isfinite(reference)
        if not bool((torch.isfinite(outputs[name]) == finite).all()):
            errors[name] = math.inf
            continue
        wide = torch.complex128 if reference.is_complex() else torch.float64
        change = (outputs[name].to(wide) - reference.to(wide))[finite].abs()
        scale = float(reference[finite].abs().max()) if bool(finite.any()) else 0.0
        errors[name] = float(change.max()) / max(scale, 1e-300) if change.numel() else 0.0
    worst = max(errors, key=lambda n: errors[n])
    return errors[worst], worst


def _require_finite(theta: State) -> None:
    for name, tensor in theta.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"`{name}` holds NaN or infinity: the file is damaged or training diverged; no function can be compared"
            )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
