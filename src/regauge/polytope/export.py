"""Meshes as files: OBJ and OFF (n-gons kept), binary STL, binary glTF 2.0 (coloured by facet)."""

from __future__ import annotations

import colorsys
import json
import os
import struct
import tempfile
from pathlib import Path

import numpy as np

from regauge.errors import InputError
from regauge.polytope.mesh import Mesh
from regauge.polytope.net import Array


def save(mesh: Mesh, path: str | Path, *, force: bool = False) -> Path:
    """Write a mesh as .obj, .off, .stl or .glb, by the suffix of `path`.

    Raises InputError for another suffix, or when the file stands already and `force` is not given.
    """
    path = Path(path)
    writers = {".obj": obj, ".off": off, ".stl": stl, ".glb": glb}
    if path.suffix.lower() not in writers:
        raise InputError(f"{path.name}: unknown format {path.suffix!r}; use one of {', '.join(writers)}.")
    return write(path, writers[path.suffix.lower()](mesh), force=force)


def write(path: Path, content: bytes, *, force: bool = False) -> Path:
    """Write beside the target, then rename; never over a file that stands unless `force`."""
    if path.exists() and not force:
        raise InputError(f"{path} exists already; choose another name or pass force.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a directory; create it first.")
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def obj(mesh: Mesh) -> bytes:
    lines = [f"v {x:.17g} {y:.17g} {z:.17g}" for x, y, z in mesh.points.tolist()]
    lines += ["f " + " ".join(str(v + 1) for v in polygon) for polygon in mesh.polygons]
    return ("\n".join(lines) + "\n").encode()


def off(mesh: Mesh) -> bytes:
    lines = ["OFF", f"{len(mesh.points)} {len(mesh.polygons)} 0"]
    lines += [f"{x:.17g} {y:.17g} {z:.17g}" for x, y, z in mesh.points.tolist()]
    lines += [f"{len(polygon)} " + " ".join(map(str, polygon)) for polygon in mesh.polygons]
    return ("\n".join(lines) + "\n").encode()


def stl(mesh: Mesh) -> bytes:
    corners = mesh.corners[mesh.triangles]
    record = np.zeros(len(corners), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
    record["normal"], record["corners"] = _normals(corners), corners
    return b"binary STL".ljust(80) + struct.pack("<I", len(corners)) + record.tobytes()


def glb(mesh: Mesh) -> bytes:
    """Two primitives: triangles with flat normals and a colour for every facet, and the true edges as lines."""
    corners = mesh.corners[mesh.triangles]
    colours = np.repeat(palette(int(mesh.triangle_facet.max()) + 1)[mesh.triangle_facet], 3, axis=0)
    normals = np.repeat(_normals(corners), 3, axis=0)
    views = [
        (corners.reshape(-1, 3).astype("<f4"), 34962, 5126, "VEC3"),
        (normals.astype("<f4"), 34962, 5126, "VEC3"),
        (colours.astype("<f4"), 34962, 5126, "VEC3"),
        (mesh.points.astype("<f4"), 34962, 5126, "VEC3"),
        (mesh.edges.reshape(-1).astype("<u4"), 34963, 5125, "SCALAR"),
    ]
    blob, buffer_views, accessors = b"", [], []
    for i, (array, target, kind, shape) in enumerate(views):
        buffer_views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": array.nbytes, "target": target})
        accessor = {"bufferView": i, "componentType": kind, "count": len(array), "type": shape}
        if i in (0, 3):
            accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        accessors.append(accessor)
        blob += array.tobytes()
    scene = {
        "asset": {"version": "2.0", "generator": "regauge"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "materials": [
            {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.8}, "doubleSided": True},
            {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1], "metallicFactor": 0.0}},
        ],
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}, "material": 0, "mode": 4},
                    {"attributes": {"POSITION": 3}, "indices": 4, "material": 1, "mode": 1},
                ]
            }
        ],
        "buffers": [{"byteLength": len(blob)}],
        "bufferViews": buffer_views,
        "accessors": accessors,
    }
    head = json.dumps(scene, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 4)
    total = 12 + 8 + len(head) + 8 + len(blob)
    return (
        struct.pack("<4sII", b"glTF", 2, total) + struct.pack("<I4s", len(head), b"JSON") + head
        + struct.pack("<I4s", len(blob), b"BIN\0") + blob
    )  # fmt: skip


def palette(count: int) -> Array:
    """Colours (count, 3) in [0, 1], neighbours in number far apart in hue."""
    hues = (np.arange(count) * 0.618033988749895) % 1.0
    return np.array([colorsys.hls_to_rgb(h, 0.55 + 0.1 * (i % 2), 0.6) for i, h in enumerate(hues)]).reshape(-1, 3)


def _normals(corners: Array) -> Array:
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
