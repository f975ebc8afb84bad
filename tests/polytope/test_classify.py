"""Names, canonical forms and symmetry groups against known orders, another isomorphism test, and hand-made bodies."""

import itertools
import math

import networkx as nx
import numpy as np
import pytest

from regauge.errors import InputError
from regauge.polytope import canonical_form, extract, hull, name, network, symmetry
from regauge.polytope.catalogue import (
    CATALAN,
    POLYCHORA,
    SNUBS,
    SOLIDS,
    _orbit_size,
    _polar,
    _solid,
    _uniform,
    candidates,
)
from regauge.polytope.flags import dual, flags

TETRAHEDRAL = ("tetrahedron", "truncated tetrahedron", "triakis tetrahedron")
OCTAHEDRAL = (
    "octahedron", "cube", "cuboctahedron", "truncated cube", "truncated octahedron", "rhombicuboctahedron",
    "truncated cuboctahedron", "snub cube", "rhombic dodecahedron", "triakis octahedron", "tetrakis hexahedron",
    "deltoidal icositetrahedron", "disdyakis dodecahedron", "pentagonal icositetrahedron",
)  # fmt: skip


def order_of(title):
    full = 24 if title in TETRAHEDRAL else 48 if title in OCTAHEDRAL else 120
    return full // 2 if title.startswith(("snub", "pentagonal")) else full


def edge_lengths(model):
    ends = model.vertices[model.faces[0][:, 1].reshape(-1, 2)]
    return np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)


@pytest.mark.parametrize("title", [*SOLIDS, *SNUBS, *CATALAN])
def test_solids(title):
    model = _polar(_solid(CATALAN[title]))() if title in CATALAN else _solid(title)()
    v, e, f = model.f_vector
    assert v - e + f == 2
    found = name(model)
    assert found is not None and found.congruent and str(found) == title
    group = symmetry(model)
    assert group.order == group.combinatorial == order_of(title)
    assert group.chiral == title.startswith(("snub", "pentagonal"))
    if title not in CATALAN:
        assert np.ptp(edge_lengths(model)) < 1e-7 * edge_lengths(model).max()
        assert v == (_orbit_size(*SOLIDS[title]) if title in SOLIDS else group.order)


@pytest.mark.parametrize("title", [t for t, (labels, _) in POLYCHORA.items() if labels in ((3, 3, 3), (4, 3, 3))])
def test_polychora(title):
    labels, rings = POLYCHORA[title]
    model = _uniform(labels, rings)()
    v, e, f, c = model.f_vector
    assert v - e + f - c == 0 and v == _orbit_size(labels, rings)
    found, group = name(model), symmetry(model)
    assert found is not None and found.congruent
    if title == "rectified 16-cell":
        assert found.type == "24-cell"
    else:
        assert found.type == title
    palindrome = labels == (3, 3, 3) and rings == rings[::-1]
    assert group.order == group.combinatorial == {3: 120, 4: 384}[labels[0]] * (2 if palindrome else 1)


def test_largest_regular_polychora():
    for title in ("120-cell", "600-cell"):
        model = _uniform(*POLYCHORA[title])()
        assert symmetry(model).order == 14400 and name(model).type == title


@pytest.mark.parametrize("dim", [3, 4, 5])
def test_regular_families_and_duality(dim):
    cube = hull(list(itertools.product((1, -1), repeat=dim)))
    cross = hull(np.concatenate([np.eye(dim), -np.eye(dim)]))
    simplex = hull(np.eye(dim + 1)[:, :dim] - 0.1)
    assert dual(flags(cube)).canonical[0] == canonical_form(cross) != canonical_form(cube)
    assert dual(flags(simplex)).canonical[0] == canonical_form(simplex)
    assert symmetry(cube).order == symmetry(cross).order == 2**dim * math.factorial(dim)
    assert symmetry(simplex).combinatorial == math.factorial(dim + 1) > symmetry(simplex).order
    assert name(cube).congruent and name(cross).congruent and not name(simplex).congruent


def twisted_cuboctahedron():
    """The triangular orthobicupola: the same f-vector and the same facets as the cuboctahedron, another lattice."""
    model = _solid("cuboctahedron")()
    triangle = [i for i, n in enumerate(np.bincount(model.faces[1][:, 0])) if n == 3][0]
    axis = model.normals[triangle] / np.linalg.norm(model.normals[triangle])
    height = model.vertices @ axis
    below, belt = model.vertices[height < -0.1], model.vertices[np.abs(height) <= 0.1]
    mirrored = below - 2 * np.outer(below @ axis, axis)
    return hull(np.concatenate([below, belt, mirrored]))


def test_same_numbers_another_polytope():
    straight, twisted = _solid("cuboctahedron")(), twisted_cuboctahedron()
    assert straight.f_vector == twisted.f_vector == (12, 24, 14)
    assert canonical_form(straight) != canonical_form(twisted)
    assert name(twisted) is None
    assert symmetry(twisted).order == 12 and symmetry(straight).order == 48


def graph_of(body):
    graph = nx.Graph()
    graph.add_nodes_from((("v", i) for i in range(body.f_vector[0])), kind="v")
    graph.add_nodes_from((("f", i) for i in range(body.f_vector[-1])), kind="f")
    pairs = body.faces[-1]
    for lower in reversed(body.faces[:-1]):
        pairs = {(f, v) for f, e in pairs for e2, v in lower if e == e2}
    graph.add_edges_from((("f", f), ("v", v)) for f, v in pairs)
    return graph


def test_canonical_form_against_graph_isomorphism():
    """Random convex bodies of equal size: equal forms exactly when their vertex-facet graphs are isomorphic."""
    rng = np.random.default_rng(0)
    bodies = [hull(rng.normal(size=(7, 3))) for _ in range(14)]
    bodies = [b for b in bodies if b.f_vector[0] == 7]
    forms, graphs = [canonical_form(b) for b in bodies], [graph_of(b) for b in bodies]
    for i, j in itertools.combinations(range(len(bodies)), 2):
        alike = nx.is_isomorphic(graphs[i], graphs[j], node_match=lambda a, b: a["kind"] == b["kind"])
        assert alike == (forms[i] == forms[j])
    assert len(set(forms)) > 1


def test_form_ignores_order_and_position():
    rng = np.random.default_rng(1)
    w = rng.normal(size=(6, 3))
    first = extract(network([w], np.ones(6), "abs"))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    again = extract(network([-w[::-1] @ turn], np.ones(6), "abs"))
    assert canonical_form(first) == canonical_form(again)
    assert symmetry(first).order == symmetry(again).order == 2  # x -> -x
    assert symmetry(first).rotations == 1


def test_symmetry_generators_are_isometries():
    body = extract(network([[[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]], np.ones(4), "abs"), exact=True)
    group = symmetry(body, exact=True)
    assert (group.order, group.rotations) == (48, 24)
    v = body.vertices.astype(float)
    for image in group.generators:
        turn = np.linalg.lstsq(v, v[list(image)], rcond=None)[0]
        assert np.abs(turn @ turn.T - np.eye(3)).max() < 1e-12 and np.abs(v @ turn - v[list(image)]).max() < 1e-12
    elements, frontier = {tuple(range(12))}, [tuple(range(12))]
    while frontier:
        frontier = [
            p for p in {tuple(g[i] for i in q) for q in frontier for g in group.generators} if p not in elements
        ]
        elements.update(frontier)
    assert len(elements) == 48


def test_a_stretched_body_keeps_its_type_and_loses_its_shape():
    body = extract(network([np.diag([1.0, 2.0, 3.0])], np.ones(3), "abs"))
    assert str(name(body)) == "combinatorially an octahedron"
    assert symmetry(body).order == 8 and symmetry(body).combinatorial == 48
    turned = extract(network([np.eye(2)], [1.0, 2.0], "abs"))
    assert str(name(turned)) == "combinatorially a square" and symmetry(turned).order == 4


def test_what_is_no_polytope_says_so():
    with pytest.raises(InputError, match="unbounded"):
        symmetry(extract(network([np.eye(2)], np.ones(2), "relu")))
    with pytest.raises(InputError, match="no vertices"):
        canonical_form(extract(network([[[1.0, 0, 0]]], [1.0], "abs")))
    with pytest.raises(InputError, match="exact=True"):
        symmetry(extract(network([np.eye(2)], np.ones(2), "abs")), exact=True)


@pytest.mark.parametrize("n", [3, 5, 6, 7])
def test_families_for_every_n(n):
    ring = np.column_stack([np.cos(2 * np.pi * np.arange(n) / n), np.sin(2 * np.pi * np.arange(n) / n)])
    level = np.column_stack([ring, np.zeros(n)])
    assert name(hull(np.vstack([level - [0, 0, 0.3], level + [0, 0, 0.3]]))).type == f"{n}-gonal prism"
    top = [[0, 0, 1.0]]
    assert name(hull(np.vstack([level, top]))).type == (f"{n}-gonal pyramid" if n > 3 else "tetrahedron")
    assert name(hull(np.vstack([level, top, np.negative(top)]))).type == f"{n}-gonal bipyramid"


def test_zonohedra_and_their_polars():
    for f_vector, title, order in (
        ((22, 40, 20), "rhombic icosahedron", 20), ((20, 40, 22), "polar of the rhombic icosahedron", 20),
        ((32, 48, 18), "chamfered cube", 48), ((18, 48, 32), "tetrakis cuboctahedron", 48),
    ):  # fmt: skip
        model = dict(candidates(f_vector))[title]()
        assert model.f_vector == f_vector and str(name(model)) == title
        assert symmetry(model).order == symmetry(model).combinatorial == order
