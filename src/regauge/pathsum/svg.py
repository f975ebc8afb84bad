"""Line plots as one small SVG text: panels side by side, axes with round ticks, error bars. No dependency, no
script."""

from dataclasses import dataclass, field
from xml.sax.saxutils import escape

import numpy as np

from regauge.pathsum.lattice import Array

WIDTH, HEIGHT = 360, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 44, 42


@dataclass(frozen=True, eq=False)
class Curve:
    """y over x, both (n,), optionally with error bars; a line, or marks."""

    x: Array
    y: Array
    error: Array | None = None
    label: str = ""
    colour: str = "#3b6fb6"
    marks: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    title: str
    across: str
    up: str
    curves: list[Curve] = field(default_factory=list)


def ticks(low: float, high: float, about: int = 5) -> Array:
    """Round numbers within [low, high]: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * min((s for s in (1, 2, 5, 10) if s * power >= raw), default=10)
    return np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step + 0.0  # no minus zero


def svg(panels: list[Panel], title: str = "") -> str:
    """All panels in one row, as a text that a browser and a README show."""
    width, height = WIDTH * len(panels), HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{width / 2}" y="18" text-anchor="middle" font-size="13">{escape(title)}</text>',
    ]
    for i, panel in enumerate(panels):
        parts.append(f'<g transform="translate({i * WIDTH},24)">{_panel(panel)}</g>')
    return "".join(parts) + "</svg>\n"


def _panel(panel: Panel) -> str:
    x0, x1 = _range([c.x for c in panel.curves], 0.0)
    bars = [c.y if c.error is None else np.concatenate([c.y - c.error, c.y + c.error]) for c in panel.curves]
    y0, y1 = _range(bars, 0.05)
    inner_w, inner_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def px(x: float) -> float:
        return LEFT + (x - x0) / (x1 - x0) * inner_w

    def py(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * inner_h

    out = [f'<rect x="{LEFT}" y="{TOP}" width="{inner_w}" height="{inner_h}" fill="none" stroke="#999"/>']
    out.append(f'<text x="{LEFT + inner_w / 2}" y="{TOP - 8}" text-anchor="middle">{escape(panel.title)}</text>')
    out.append(f'<text x="{LEFT + inner_w / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(panel.across)}</text>')
    middle = TOP + inner_h / 2
    out.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(panel.up)}</text>'
    )
    for x in ticks(x0, x1):
        out.append(f'<text x="{px(x):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{x:.3g}</text>')
    for y in ticks(y0, y1):
        out.append(f'<text x="{LEFT - 5}" y="{py(y) + 4:.1f}" text-anchor="end">{y:.3g}</text>')
        out.append(f'<path d="M{LEFT},{py(y):.1f}h{inner_w}" stroke="#eee"/>')
    labels = [c for c in panel.curves if c.label]
    for i, c in enumerate(labels):
        out.append(
            f'<text x="{WIDTH - RIGHT - 8}" y="{TOP + 16 + 14 * i}" text-anchor="end" fill="{c.colour}">'
            f"{escape(c.label)}</text>"
        )
    for c in panel.curves:
        points = [(px(float(x)), py(float(y))) for x, y in zip(c.x, c.y, strict=True)]
        if c.error is not None:
            for (x, _), y, e in zip(points, c.y, c.error, strict=True):
                out.append(f'<path d="M{x:.1f},{py(float(y - e)):.1f}V{py(float(y + e)):.1f}" stroke="{c.colour}"/>')
        if c.marks:
            out.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{c.colour}"/>' for x, y in points)
        else:
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            out.append(f'<polyline points="{line}" fill="none" stroke="{c.colour}" stroke-width="1.4"/>')
    return "".join(out)


def _range(values: list[Array], margin: float) -> tuple[float, float]:
    every = np.concatenate([np.asarray(v, float) for v in values]) if values else np.zeros(1)
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    pad = margin * (high - low)
    return low - pad, high + pad
