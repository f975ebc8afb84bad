"""Two small pictures as SVG text: point clouds in panels, and log-log curves. No plotting library is needed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from torch import Tensor

_COLOURS = ("#1f5fa8", "#c2452d", "#3a8a4f", "#7a4fa3", "#b08a1e", "#444444")


@dataclass(frozen=True)
class Curve:
    """One line of a log-log plot: positive x and y."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One cloud of points (n, 2) with a title; groups (n,): a colour for each, counted from 0."""

    title: str
    points: Tensor
    groups: Tensor | None = None


def _page(width: float, height: float, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12">'
    )
    return "\n".join([head, f'<rect width="{width:g}" height="{height:g}" fill="white"/>', *body, "</svg>\n"])


def scatter_svg(rows: Sequence[Sequence[Panel]], limit: float, side: float = 190.0) -> str:
    """A grid of scatter plots, all on [-limit, limit]^2."""
    body, gap, head = [], 10.0, 22.0
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            left, top = gap + j * (side + gap), gap + i * (side + head + gap)
            body.append(f'<text x="{left:g}" y="{top + 14:g}">{escape(panel.title)}</text>')
            box = f'x="{left:g}" y="{top + head:g}" width="{side:g}" height="{side:g}"'
            body.append(f'<rect {box} fill="none" stroke="#bbbbbb"/>')
            inside = (panel.points.abs() < limit).all(-1)
            groups = (0 * inside).long() if panel.groups is None else panel.groups
            for group in groups[inside].unique().tolist():
                dots = "".join(
                    f"M{left + (x / limit + 1) * side / 2:.1f},{top + head + (1 - y / limit) * side / 2:.1f}h0"
                    for x, y in panel.points[inside & (groups == group)].tolist()
                )
                body.append(
                    f'<path d="{dots}" stroke="{_COLOURS[group % len(_COLOURS)]}" stroke-width="1.8" '
                    'stroke-linecap="round" opacity="0.6"/>'
                )
    width = gap + max(len(row) for row in rows) * (side + gap)
    return _page(width, gap + len(rows) * (side + head + gap), body)


def loglog_svg(
    curves: Sequence[Curve], title: str, x_label: str, y_label: str, width: float = 460, height: float = 340
) -> str:
    """Curves on logarithmic axes with a legend."""
    left, right, top, bottom = 70.0, width - 20, 40.0, height - 50
    low_x, high_x = _decades([v for c in curves for v in c.x], tight=True)
    low_y, high_y = _decades([v for c in curves for v in c.y])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low_x) / (high_x - low_x)
        up = (math.log10(y) - low_y) / (high_y - low_y)
        return left + across * (right - left), bottom - up * (bottom - top)

    body = [
        f'<text x="{left:g}" y="22" font-size="14">{escape(title)}</text>',
        f'<text x="{(left + right) / 2:g}" y="{height - 12:g}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text x="14" y="{(top + bottom) / 2:g}" transform="rotate(-90 14 {(top + bottom) / 2:g})" '
        f'text-anchor="middle">{escape(y_label)}</text>',
        f'<rect x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}" '
        'fill="none" stroke="#888888"/>',
    ]
    for power in range(math.ceil(low_y), math.floor(high_y) + 1):
        _, y = place(10**low_x, 10.0**power)
        body.append(f'<path d="M{left:g},{y:.1f}H{right:g}" stroke="#e4e4e4"/>')
        body.append(f'<text x="{left - 6:g}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    for value in sorted({v for c in curves for v in c.x}):
        x, _ = place(value, 10**low_y)
        body.append(f'<text x="{x:.1f}" y="{bottom + 16:g}" text-anchor="middle">{value:g}</text>')
    for k, curve in enumerate(curves):
        colour, dash = _COLOURS[k % len(_COLOURS)], ' stroke-dasharray="5 4"' if curve.dashed else ""
        spots = [place(x, y) for x, y in zip(curve.x, curve.y, strict=True)]
        path = "L".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        body.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        if not curve.dashed:
            body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots]
        body.append(
            f'<text x="{right - 8:g}" y="{top + 18 + 16 * k:g}" text-anchor="end" fill="{colour}">'
            f"{escape(curve.label)}</text>"
        )
    return _page(width, height, body)


def _decades(values: Sequence[float], tight: bool = False) -> tuple[float, float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    if tight:
        margin = 0.05 * (high - low) + 0.01
        return low - margin, high + margin
    return math.floor(low), math.ceil(high) if math.ceil(high) > math.floor(low) else math.floor(low) + 1
