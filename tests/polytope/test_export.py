"""Files that other programs read back: n-gons, closed surfaces, volumes, colours."""

import math

import numpy as np
import pytest

from regauge.errors import InputError
from regauge.polytope import extract, mesh, network, pbody, save, smooth_mesh, train


@pytest.fixture(scope="module")
def bodies():
    rng = np.random.default_rng(2)
    dented = network([rng.normal(size=(8, 3)), rng.normal(size=(8, 8))], np.abs(rng.normal(size=8)), "relu")
    octahedron = network([np.eye(3)], np.ones(3), "abs")
    return {
        "icosidodecahedron": extract(train(3, 6).network),
        "dented": extract(dented),
        "exact": extract(octahedron, exact=True),
    }


@pytest.mark.parametrize("which", ["icosidodecahedron", "dented", "exact"])
@pytest.mark.parametrize("suffix", ["obj", "stl", "glb"])
def test_another_program_reads_a_closed_surface(bodies, which, suffix, tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="trimesh, which reads the files back, is not installed")
    body = bodies[which]
    path = save(mesh(body), tmp_path / f"body.{suffix}")
    solid = trimesh.load(path, force="mesh", process=True)
    solid.merge_vertices(merge_norm=True, merge_tex=True)
    assert solid.is_watertight and solid.is_winding_consistent
    assert solid.volume == pytest.approx(float(body.volume), rel=1e-5)
    assert len(solid.vertices) == body.f_vector[0]


@pytest.mark.parametrize("suffix", ["obj", "off"])
def test_polygons_stay_whole(bodies, suffix, tmp_path):
    body = bodies["icosidodecahedron"]
    lines = save(mesh(body), tmp_path / f"body.{suffix}").read_text().split("\n")
    if suffix == "obj":
        points = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
        faces = [[int(v) - 1 for v in line.split()[1:]] for line in lines if line.startswith("f ")]
    else:
        assert lines[0] == "OFF" and lines[1] == "30 32 0"
        points = np.array([line.split() for line in lines[2:32]], float)
        faces = [[int(v) for v in line.split()[1:]] for line in lines[32:64]]
        assert [int(line.split()[0]) for line in lines[32:64]] == list(map(len, faces))
    assert np.array_equal(points, body.vertices)
    assert sorted(map(len, faces)) == [3] * 20 + [5] * 12
    for face in faces:
        corners = points[face]
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        assert np.abs((corners - corners[0]) @ normal).max() < 1e-12 and normal @ corners[0] > 0


def test_gltf_is_valid_and_coloured_by_facet(bodies, tmp_path):
    gltf = pytest.importorskip("pygltflib", reason="pygltflib, which checks the file, is not installed")
    body = bodies["icosidodecahedron"]
    scene = gltf.GLTF2().load(str(save(mesh(body), tmp_path / "body.glb")))
    blob, triangles = scene.binary_blob(), scene.meshes[0].primitives[0]

    def values(index):
        accessor = scene.accessors[index]
        view = scene.bufferViews[accessor.bufferView]
        width = 3 if accessor.type == "VEC3" else 1
        kind = "<f4" if accessor.componentType == 5126 else "<u4"
        return np.frombuffer(blob, kind, accessor.count * width, view.byteOffset).reshape(-1, width)

    colours = values(triangles.attributes.COLOR_0)
    assert len(np.unique(np.round(colours, 5), axis=0)) == 32
    normals, corners = values(triangles.attributes.NORMAL), values(triangles.attributes.POSITION)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5) and ((normals * corners).sum(1) > 0).all()
    lines = scene.meshes[0].primitives[1]
    assert lines.mode == 1 and scene.accessors[lines.indices].count == 2 * 60
    position = scene.accessors[triangles.attributes.POSITION]
    assert np.allclose(position.min, corners.min(axis=0)) and np.allclose(position.max, corners.max(axis=0))


def test_plane_bodies_are_flat_polygons(tmp_path):
    body = extract(train(2, 4).network)
    drawn = mesh(body)
    assert drawn.polygons == (tuple(drawn.polygons[0]),) and len(drawn.polygons[0]) == 8
    assert set(drawn.triangle_facet.tolist()) == set(range(8))
    corners = drawn.corners[drawn.triangles]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] / 2
    assert (area > 0).all() and area.sum() == pytest.approx(body.volume)


def test_smooth_bodies(tmp_path):
    surface = smooth_mesh(pbody(np.eye(3), 4).gauge, 4)
    corners = surface.points[surface.triangles]
    volume = np.linalg.det(corners).sum() / 6
    assert volume == pytest.approx(8 * math.gamma(1.25) ** 3 / math.gamma(1.75), rel=5e-3)
    v, e, f = len(surface.points), len(surface.edges), len(surface.triangles)
    assert v - e + f == 2


def test_nothing_is_overwritten_and_nothing_half_written(bodies, tmp_path):
    path = tmp_path / "body.obj"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        save(mesh(bodies["exact"]), path)
    assert path.read_text() == "mine"
    save(mesh(bodies["exact"]), path, force=True)
    assert path.read_text().startswith("v ") and [p.name for p in tmp_path.iterdir()] == ["body.obj"]
    with pytest.raises(InputError, match="unknown format"):
        save(mesh(bodies["exact"]), tmp_path / "body.xyz")
    with pytest.raises(InputError, match="not a directory"):
        save(mesh(bodies["exact"]), tmp_path / "nowhere" / "body.obj")
    with pytest.raises(InputError, match="section"):
        mesh(extract(network([np.eye(4)], np.ones(4), "abs")))
    with pytest.raises(InputError, match="unbounded"):
        mesh(extract(network([np.eye(3)], np.ones(3), "relu")))
