"""Names, canonical forms and symmetry groups against known orders, another isomorphism test, and hand-made bodies."""

import itertools
import math
import tracemalloc

import networkx as nx
import numpy as np
import pytest

from regauge.errors import InputError
from regauge.polytope import canonical_form, extract, hull, name, network, symmetry
from regauge.polytope.catalogue import SNUBS, _snub, candidates, ring
from regauge.polytope.coxeter import Diagram, f_vector, forked, group_order, linear, mirrors, orbit_points, orbit_size
from regauge.polytope.flags import dual, flags
from regauge.polytope.typed import identify
from regauge.polytope.words import CATALAN
from regauge.polytope.wythoff import SOLIDS, operation, uniform

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


def solid(title):
    """The solid, from its own group or as a polar."""
    if title in SNUBS:
        return _snub(SNUBS[title][0])()
    if title in SOLIDS:
        return hull(orbit_points(*SOLIDS[title]))
    return hull(solid({catalan: archimedean for archimedean, catalan in CATALAN.items()}[title]).normals)


@pytest.mark.parametrize("title", [*SOLIDS, *SNUBS, *CATALAN.values()])
def test_solids(title):
    model = solid(title)
    v, e, f = model.f_vector
    assert v - e + f == 2
    found = name(model)
    assert found is not None and found.congruent and str(found) == title
    group = symmetry(model)
    assert group.order == group.combinatorial == order_of(title)
    assert group.chiral == title.startswith(("snub", "pentagonal"))
    if title not in CATALAN.values():
        assert np.ptp(edge_lengths(model)) < 1e-7 * edge_lengths(model).max()
        assert v == (orbit_size(*SOLIDS[title]) if title in SOLIDS else group.order)


GROUPS = {(3, 3, 3): 120, (4, 3, 3): 384, (3, 4, 3): 1152, (5, 3, 3): 14400}
FOUR = {title: (diagram, rings) for title, diagram, rings in uniform(4)}


def test_there_are_45_uniform_polychora_with_a_reflection_group():
    assert len(FOUR) == 45  # with the snub 24-cell and the grand antiprism the 47 of Conway and Guy
    for title, (diagram, rings) in FOUR.items():
        v, e, f, c = f_vector(diagram, rings)
        assert v - e + f - c == 0 and v == orbit_size(diagram, rings), title
        assert diagram.order == GROUPS[tuple(m for *_, m in diagram.bonds)]


SMALL = [t for t, (diagram, rings) in FOUR.items() if diagram.order <= 400]
QUICK = [t for t in SMALL if FOUR[t][0].order == 120 or f_vector(*FOUR[t])[0] <= 64]


@pytest.mark.parametrize("title", [*QUICK, *(pytest.param(t, marks=pytest.mark.slow) for t in SMALL if t not in QUICK)])
def test_polychora(title):
    diagram, rings = FOUR[title]
    model = hull(orbit_points(diagram, rings))
    assert model.f_vector == f_vector(diagram, rings)
    found, group = name(model), symmetry(model)
    assert str(found) == title and found.congruent
    palindrome = diagram == linear(3, 3, 3) and rings == rings[::-1]
    expected = 384 if title == "16-cell" else diagram.order * (2 if palindrome else 1)
    assert group.order == group.combinatorial == expected
    polar = hull(model.normals)
    assert name(polar).congruent and symmetry(polar).order == expected
    assert str(name(polar)) == {"5-cell": "5-cell", "16-cell": "tesseract", "tesseract": "16-cell"}.get(
        title, f"polar of the {title}"
    )


@pytest.mark.parametrize(
    "title",
    [
        "24-cell",
        "120-cell",
        "600-cell",
        *(pytest.param(f"{o} 24-cell", marks=pytest.mark.slow) for o in ("rectified", "truncated")),
    ],
)
def test_larger_polychora(title):
    diagram, rings = FOUR[title]
    model = hull(orbit_points(diagram, rings))
    assert model.f_vector == f_vector(diagram, rings) and str(name(model)) == title
    assert symmetry(model).order == diagram.order


def test_the_same_polytope_from_another_group_has_one_name():
    for rings, title in (("0010", "24-cell"), ("0101", "rectified 24-cell"), ("0111", "truncated 24-cell")):
        assert str(name(hull(orbit_points(linear(4, 3, 3), rings)))) == title
    fork = forked(4, 1)  # D_4
    assert fork.order == 192
    for rings, title in (("1000", "16-cell"), ("0100", "24-cell"), ("1001", "rectified tesseract")):
        assert str(name(hull(orbit_points(fork, rings)))) == title


def test_exceptional_polychora():
    for f, order, title in (((96, 432, 480, 144), 576, "snub 24-cell"), ((100, 500, 720, 320), 400, "grand antiprism")):
        model = next(made for made in candidates(f) if made.title == title).build()
        assert model.f_vector == f and np.ptp(edge_lengths(model)) < 1e-9
        assert str(name(model)) == title and symmetry(model).order == order


@pytest.mark.parametrize(
    ("diagram", "order"),
    [(forked(6, 2), 51840), (forked(7, 2), 2903040), (forked(8, 2), 696729600), (forked(7, 4), 2**6 * 5040),
     (linear(3, 3, 3, 3), 720), (linear(4, 3, 3, 3), 3840), (linear(7), 14), (Diagram(3, ()), 8)],
)  # fmt: skip
def test_orders_of_reflection_groups(diagram, order):
    assert diagram.order == order
    normals = mirrors(diagram)
    gram = normals @ normals.T
    assert np.linalg.eigvalsh(gram).min() > 1e-3 and np.allclose(np.diag(gram), 1)
    assert group_order(diagram, 0) == 1 and group_order(diagram, 1) == 2


@pytest.mark.parametrize("diagram", [linear(3, 3, 3, 3), linear(4, 3, 3, 3), forked(5, 2)])
def test_f_vectors_are_known_before_the_points_are(diagram):
    for rings in ("10000", "01000", "00100", "00001", "10001", "01100"):
        assert hull(orbit_points(diagram, rings)).f_vector == f_vector(diagram, rings)


def test_uniform_polytopes_of_higher_dimension_by_name():
    five = {title: (diagram, rings) for title, diagram, rings in uniform(5)}
    assert len(five) == len(uniform(5)) == 19 + 31 + 8  # A_5 up to reversal, B_5, and one end of D_5's fork
    for title in ("expanded 5-simplex", "5-demicube", "birectified 5-cube", "bitruncated 5-simplex"):  # fmt: skip
        diagram, rings = five[title]
        assert str(name(hull(orbit_points(diagram, rings)))) == title
    for k, title in ((2, "rectified 5-simplex"), (3, "birectified 5-simplex")):  # hypersimplices
        corners = np.array([p for p in itertools.product((0, 1), repeat=6) if sum(p) == k], float)
        assert str(name(hull(corners @ np.linalg.svd(np.ones((1, 6)))[2][1:].T))) == title
    orders = np.array(list(itertools.permutations(range(5))), float)  # the permutohedron
    assert str(name(hull(orders @ np.linalg.svd(np.ones((1, 5)))[2][1:].T))) == "omnitruncated 5-cell"


def test_operations_are_named_by_their_rings():
    for rings, words in (
        ("1000", ""), ("0100", "rectified "), ("0010", "birectified "), ("1100", "truncated "), ("0110", "bitruncated "),
        ("1010", "cantellated "), ("1001", "runcinated "), ("1110", "cantitruncated "), ("1101", "runcitruncated "),
        ("1111", "omnitruncated "), ("10001", "expanded "), ("11010", "runcitruncated "), ("10110", "runcicantellated "),
        ("01101", "biruncitruncated "), ("111010", "stericantitruncated "), ("011100", "bicantitruncated "),
    ):  # fmt: skip
        assert operation(rings) == words


@pytest.mark.slow
def test_uniform_polytopes_of_six_dimensions():
    model = hull(orbit_points(forked(6, 2), "100000"))
    assert model.f_vector == (27, 216, 720, 1080, 648, 99) and str(name(model)) == "2_21"
    half = np.array([p for p in itertools.product((1, -1), repeat=6) if np.prod(p) == 1], float)
    assert str(name(hull(half))) == "6-demicube"


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
    model = solid("cuboctahedron")
    triangle = [i for i, n in enumerate(np.bincount(model.faces[1][:, 0])) if n == 3][0]
    axis = model.normals[triangle] / np.linalg.norm(model.normals[triangle])
    height = model.vertices @ axis
    below, belt = model.vertices[height < -0.1], model.vertices[np.abs(height) <= 0.1]
    mirrored = below - 2 * np.outer(below @ axis, axis)
    return hull(np.concatenate([below, belt, mirrored]))


def test_same_numbers_another_polytope():
    straight, twisted = solid("cuboctahedron"), twisted_cuboctahedron()
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


WORDS = {3: "triangular", 5: "pentagonal", 6: "hexagonal", 7: "heptagonal", 12: "12-gonal"}


@pytest.mark.parametrize("n", WORDS)
def test_families_for_every_n(n):
    level = np.column_stack([ring(n), np.zeros(n)])
    prism = name(hull(np.vstack([level - [0, 0, 0.3], level + [0, 0, 0.3]])))
    assert (prism.type, prism.congruent) == (f"{WORDS[n]} prism", False)
    half = math.sin(math.pi / n)  # squares at the sides
    assert str(name(hull(np.vstack([level - [0, 0, half], level + [0, 0, half]])))) == f"{WORDS[n]} prism"
    top = [[0, 0, 1.0]]
    assert name(hull(np.vstack([level, top]))).type == (f"{WORDS[n]} pyramid" if n > 3 else "tetrahedron")
    assert name(hull(np.vstack([level, top, np.negative(top)]))).type == f"{WORDS[n]} bipyramid"
    turned = np.column_stack([ring(n, 0.5), np.zeros(n)]) - top
    anti = hull(np.vstack([level, turned]))
    assert name(anti).type == (f"{WORDS[n]} antiprism" if n > 3 else "octahedron")
    assert name(hull(anti.normals)).type == (f"{WORDS[n]} trapezohedron" if n > 3 else "cube")


def edged(points):
    """Scaled to nearest distance 1."""
    gap = np.linalg.norm(points[:, None] - points[None], axis=2)
    return points / gap[gap > 1e-9].min()


def product(*factors):
    return np.array([np.concatenate(choice) for choice in itertools.product(*factors)])


def direct_sum(*summands):
    width = sum(len(points[0]) for points in summands)
    rows, start = [], 0
    for points in summands:
        block = np.zeros((len(points), width))
        block[:, start : start + len(points[0])] = points
        rows.append(block)
        start += len(points[0])
    return np.concatenate(rows)


SEGMENT = np.array([[-0.5], [0.5]])


@pytest.mark.parametrize(
    ("title", "polar", "factors"),
    [
        ("3,5-duoprism", "3,5-duopyramid", (edged(ring(5)), edged(ring(3)))),
        ("4,5-duoprism", "4,5-duopyramid", (SEGMENT, edged(ring(5)), SEGMENT)),
        ("6,6-duoprism", "6,6-duopyramid", (edged(ring(6)), edged(ring(6)))),
        ("tesseract", "16-cell", (SEGMENT,) * 4),
        ("prism over a cuboctahedron", "bipyramid over a rhombic dodecahedron",
         (edged(orbit_points(*SOLIDS["cuboctahedron"])), SEGMENT)),
        ("prism over an icosahedron", "bipyramid over a dodecahedron",
         (edged(orbit_points(*SOLIDS["icosahedron"])), SEGMENT)),
        ("product of a pentagon, a triangle and a segment", "direct sum of a pentagon, a triangle and a segment",
         (edged(ring(3)), SEGMENT, edged(ring(5)))),
        ("product of an octahedron and a pentagon", "direct sum of a cube and a pentagon",
         (edged(orbit_points(*SOLIDS["octahedron"])), edged(ring(5)))),
    ],
)  # fmt: skip
def test_products_and_direct_sums(title, polar, factors):
    model = hull(product(*factors))
    assert str(name(model)) == title and str(name(hull(model.normals))) == polar
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(len(model.vertices[0]),) * 2))[0]
    assert str(name(hull(3 * model.vertices[::-1] @ turn))) == title
    skewed = hull(model.vertices * np.linspace(1, 1.1, len(turn)))
    assert str(name(skewed)).startswith("combinatorially a") and name(skewed).type == title
    assert name(hull(direct_sum(*(hull(f).normals if len(f) > 2 else f for f in factors)))).type == polar


def test_pyramids():
    base = edged(orbit_points(*SOLIDS["cuboctahedron"]))
    tip = np.column_stack([base, np.zeros(12)]), [[0, 0, 0, 1.0]]
    assert name(hull(np.vstack(tip))).type == "pyramid over a cuboctahedron"
    for n, title in ((4, "square pyramid"), (5, "pentagonal pyramid")):  # all edges equal
        flat = edged(ring(n))
        top = math.sqrt(1 - (flat[0] ** 2).sum())
        assert str(name(hull(np.vstack([np.column_stack([flat, np.zeros(n)]), [[0, 0, top]]])))) == title


@pytest.mark.parametrize("dim", [6, pytest.param(7, marks=pytest.mark.slow), 9])
def test_cubes_and_orthoplexes_of_any_dimension(dim):
    """Too many flags to walk, so products are told from the incidence alone."""
    assert str(name(extract(network([np.eye(dim)], np.ones(dim), "abs")))) == f"{dim}-orthoplex"
    turn = np.linalg.qr(np.random.default_rng(dim).normal(size=(dim, dim)))[0]
    assert str(name(extract(network([turn], np.ones(dim), "abs")))) == f"{dim}-orthoplex"
    if dim < 9:
        from regauge.polytope import Maxout

        sides = np.concatenate([turn, -turn])  # max |turn x| as one maxout unit
        assert str(name(extract(network([sides], [1.0], Maxout(2 * dim))))) == f"{dim}-cube"


def test_large_bodies_are_not_taken_apart():
    """6,000 vertices and as many facets: no square table is made of them."""
    body = extract(network([np.random.default_rng(0).normal(size=(79, 3))], np.ones(79), "abs"))
    assert body.f_vector == (79 * 78, 2 * 79 * 78, 79 * 78 + 2)
    tracemalloc.start()
    assert name(body) is None
    assert tracemalloc.get_traced_memory()[1] < 150e6  # bytes; a table of floats would take 300e6
    tracemalloc.stop()


def random_simplicial(seed):
    return hull(np.random.default_rng(seed).normal(size=(8, 3)))


def test_products_of_nameless_polytopes_have_no_name():
    model = random_simplicial(0)
    assert name(model) is None
    on_edge = hull(product(model.vertices, SEGMENT))
    assert name(on_edge) is None and on_edge.f_vector[0] == 2 * model.f_vector[0]


def test_identify_needs_no_coordinates():
    on = np.abs(orbit_points(*SOLIDS["cuboctahedron"]) @ solid("cuboctahedron").normals.T - 1) < 1e-9
    found = identify(on, 3)
    assert found.title == "cuboctahedron" and found.polar == "rhombic dodecahedron"
    assert np.allclose((found.vertices @ found.normals.T)[on], 1)


def test_zonohedra_and_their_polars():
    for f, title, polar, order in (
        ((22, 40, 20), "rhombic icosahedron", "polar of the rhombic icosahedron", 20),
        ((32, 48, 18), "chamfered cube", "tetrakis cuboctahedron", 48),
        ((18, 28, 12), "elongated dodecahedron", "polar of the elongated dodecahedron", 16),
        ((92, 180, 90), "rhombic enneacontahedron", "polar of the rhombic enneacontahedron", 120),
    ):
        model = next(made for made in candidates(f) if made.title == title).build()
        assert model.f_vector == f and str(name(model)) == title
        assert symmetry(model).order == symmetry(model).combinatorial == order
        assert str(name(hull(model.normals))) == polar
    cone = np.column_stack([ring(7), np.full(7, 0.6)])
    star = extract(network([cone], np.ones(7), "abs"))
    assert str(name(star)) == "combinatorially a polar of the polar zonohedron of 7 zones"


def catalan_number(n):
    return math.comb(2 * n, n) // (n + 1)


@pytest.mark.parametrize("dim", [3, 4])
def test_associahedra(dim):
    """Narayana numbers; every facet is a product of two smaller ones."""
    f = {3: (14, 21, 9), 4: (42, 84, 56, 14)}[dim]
    assert f[0] == catalan_number(dim + 1)
    model = next(made for made in candidates(f) if "associahedron" in made.title).build()
    assert model.f_vector == f and symmetry(model).order == 2 * (dim + 3)
    assert name(model).type.endswith("associahedron") and not name(model).congruent


def test_cyclic_polytopes_are_neighbourly():
    for n, dim in ((7, 4), (8, 4), (8, 5), (9, 6)):
        t = np.linspace(-1, 1, n)
        model = hull(np.stack([t ** (k + 1) for k in range(dim)], axis=1))
        assert model.f_vector[1] == math.comb(n, 2)
        assert name(model).type == f"cyclic polytope C({n}, {dim})"
