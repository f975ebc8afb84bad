"""One self-contained HTML page that shows a body, or a row of bodies along training: rotate, slice, project."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from regauge.errors import InputError
from regauge.polytope.body import StarBody, simplices
from regauge.polytope.classify import describe, symmetry
from regauge.polytope.export import write
from regauge.polytope.mesh import Mesh, mesh, tips
from regauge.polytope.net import Array

Fact = tuple[str, str]
Shown = StarBody | Mesh


def page(bodies: Shown | Sequence[Shown], *, title: str | None = None, facts: Sequence[Sequence[Fact]] = ()) -> str:
    """The page as text; no network, no other file is needed to show it.

    bodies: one body, or several of one dimension (2, 3 or 4) for a slider; the last is shown first. The mesh of a
        smooth body does as well.
    facts: for each body, lines (name, value) to list besides f-vector, volume and symmetry.
    Raises InputError for an unbounded body or another dimension.
    """
    bodies = [bodies] if isinstance(bodies, (StarBody, Mesh)) else list(bodies)
    dims = {body.dim if isinstance(body, StarBody) else 3 for body in bodies}
    if len(dims) != 1 or not dims <= {2, 3, 4}:
        raise InputError(f"the page shows bodies of one dimension, 2, 3 or 4; these have {sorted(dims) or 'none'}.")
    if not all(body.bounded for body in bodies if isinstance(body, StarBody)):
        raise InputError("the page shows bounded bodies only; one of these is unbounded.")
    extra = list(facts) or [()] * len(bodies)
    frames = [
        _frame(body, more) if isinstance(body, StarBody) else _smooth_frame(body, more)
        for body, more in zip(bodies, extra, strict=True)
    ]
    corners = bodies[-1].vertices.astype(float) if isinstance(bodies[-1], StarBody) else bodies[-1].points
    radius = max(float(np.linalg.norm(corners, axis=1).max()), 1e-300)
    data = json.dumps({"dim": dims.pop(), "radius": radius, "frames": frames}, separators=(",", ":"))
    template = files("regauge.polytope").joinpath("page.html").read_text(encoding="utf-8")
    name = title or f"{frames[-1]['name']} as a neural polytope"
    return template.replace("@TITLE@", html.escape(name)).replace("@DATA@", data.replace("<", "\\u003c"))


def save_page(
    bodies: Shown | Sequence[Shown], path: str | Path, *, force: bool = False, title: str | None = None,
    facts: Sequence[Sequence[Fact]] = (),
) -> Path:  # fmt: skip
    """Write `page(...)` to a file; InputError when it stands already and `force` is not given."""
    return write(Path(path), page(bodies, title=title, facts=facts).encode(), force=force)


def summary(body: StarBody) -> list[Fact]:
    """What there is to say about a body, as lines (name, value)."""
    lines = [
        ("dimension", str(body.dim)),
        ("f-vector", ", ".join(map(str, body.f_vector))),
        ("convex", "yes" if body.convex else "no (star-shaped)"),
        ("bounded", "yes" if body.bounded else "no"),
    ]
    if body.bounded:
        lines.append(("area" if body.dim == 2 else "volume", f"{float(body.volume):.7g}"))
        try:
            group = symmetry(body)
            lines.append(("isometries", f"{group.order} ({group.rotations} rotations)"))
            lines.append(("automorphisms", str(group.combinatorial)))
        except InputError:
            lines.append(("isometries", "not worked out"))
    lines.append(("linear regions", str(body.regions.fan.counts[-1])))
    lines.append(("decided", "in rational arithmetic" if body.certified else "in floating point"))
    return lines


def _frame(body: StarBody, more: Sequence[Fact]) -> dict[str, Any]:
    named = describe(body)
    frame: dict[str, Any] = {
        "name": named[0].upper() + named[1:] if not named.startswith("no") else "A neural polytope",
        "facts": [*more, *summary(body)],
        "sides": _pack(np.bincount(body.facet_vertices[:, 0], minlength=len(body.normals)), "<u4"),
    }
    if body.dim == 4:
        cells, region = simplices(body.regions.fan)
        walls, owner = simplices(body.regions.fan, 2)
        facet = body.facet_of_region[region]
        seams = walls[body.true_faces[2][owner] >= 0]
        points = tips(body)
        first = np.flatnonzero(body.true_faces[0] >= 0)
        frame["wires"] = first[body.edges].reshape(-1).tolist()
    else:
        drawn = mesh(body)
        points, cells, facet, seams = drawn.corners[:, : body.dim], drawn.triangles, drawn.triangle_facet, drawn.edges
        if body.dim == 3:
            first = np.flatnonzero(body.true_faces[0] >= 0)
            seams = first[seams]
    frame |= {"points": _pack(points, "<f4"), "cells": _pack(cells, "<u4"), "facet": _pack(facet, "<u4")}
    frame["seams"] = _pack(seams, "<u4")
    return frame


def _smooth_frame(surface: Mesh, more: Sequence[Fact]) -> dict[str, Any]:
    volume = float(np.linalg.det(surface.corners[surface.triangles]).sum() / 6)
    return {
        "name": "A smooth body",
        "facts": [
            *more,
            ("dimension", "3"),
            ("volume", f"{volume:.5g}"),
            ("drawn with", f"{len(surface.triangles)} triangles"),
        ],
        "sides": _pack(np.array([3]), "<u4"),
        "points": _pack(surface.corners, "<f4"),
        "cells": _pack(surface.triangles, "<u4"),
        "facet": _pack(surface.triangle_facet, "<u4"),
        "seams": _pack(np.empty(0), "<u4"),
    }


def _pack(array: Array, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=kind).tobytes()).decode()
