"""How polytopes are called: articles, polygons, and what products, sums and pyramids of known ones are named."""

from __future__ import annotations

from collections.abc import Sequence

POLYGONS = ("triangle", "square", "pentagon", "hexagon", "heptagon", "octagon", "nonagon", "decagon")
ADJECTIVES = (
    "triangular", "square", "pentagonal", "hexagonal", "heptagonal", "octagonal", "nonagonal", "decagonal",
)  # fmt: skip
CATALAN = {
    "cuboctahedron": "rhombic dodecahedron",
    "icosidodecahedron": "rhombic triacontahedron",
    "truncated tetrahedron": "triakis tetrahedron",
    "truncated cube": "triakis octahedron",
    "truncated octahedron": "tetrakis hexahedron",
    "rhombicuboctahedron": "deltoidal icositetrahedron",
    "truncated cuboctahedron": "disdyakis dodecahedron",
    "truncated dodecahedron": "triakis icosahedron",
    "truncated icosahedron": "pentakis dodecahedron",
    "rhombicosidodecahedron": "deltoidal hexecontahedron",
    "truncated icosidodecahedron": "disdyakis triacontahedron",
    "snub cube": "pentagonal icositetrahedron",
    "snub dodecahedron": "pentagonal hexecontahedron",
}
OTHER_POLARS = {
    "chamfered cube": "tetrakis cuboctahedron", "dodecahedron": "icosahedron", "24-cell": "24-cell",
    "120-cell": "600-cell", "600-cell": "120-cell", "icosahedron": "dodecahedron",
}  # fmt: skip
CUBES = {1: "segment", 2: "square", 3: "cube", 4: "tesseract"}
CROSSES = {1: "segment", 2: "square", 3: "octahedron", 4: "16-cell"}
SIMPLICES = {1: "segment", 2: "triangle", 3: "tetrahedron", 4: "5-cell"}


def polygon(n: int) -> str:
    """ "pentagon", "12-gon"."""
    return POLYGONS[n - 3] if n < 11 else f"{n}-gon"


def adjective(n: int) -> str:
    """ "pentagonal", "12-gonal"."""
    return ADJECTIVES[n - 3] if n < 11 else f"{n}-gonal"


def is_polygon(title: str) -> bool:
    """Whether `polygon` gives this name, the square excepted, whose name says that it is regular."""
    return title in POLYGONS[:1] + POLYGONS[2:] or title.removesuffix("-gon").isdigit()


def article(title: str) -> str:
    """The title with "a" or "an"."""
    return ("an " if title[0] in "aeio" or title.startswith(("8-", "8,", "11-", "11,", "18-", "18,")) else "a ") + title


def polar(title: str) -> str:
    """The name of the polar of a known polytope that is no product."""
    if title.endswith("antiprism") and title != "grand antiprism":
        return title.removesuffix("antiprism") + "trapezohedron"
    known = CATALAN | OTHER_POLARS
    return known.get(title, f"polar of the {title}")


def product(titles: Sequence[str], sides: Sequence[int]) -> str:
    """The product of polytopes; sides: of a polygon its sides, of a segment 2, of any other 0."""
    return _compound(titles, sides, CUBES, "cube", "prism", "duoprism", "prism over", "product of")


def direct_sum(titles: Sequence[str], sides: Sequence[int]) -> str:
    """The direct sum, which is the polar of the product of the polars."""
    return _compound(titles, sides, CROSSES, "orthoplex", "bipyramid", "duopyramid", "bipyramid over", "direct sum of")


def pyramid(base: str, sides: int) -> str:
    """A point over a base; sides: of a polygon, else 0."""
    return f"{adjective(sides)} pyramid" if sides else f"pyramid over {article(base)}"


def _compound(
    titles: Sequence[str], sides: Sequence[int], boxes: dict[int, str], box: str, one: str, two: str, over: str, of: str
) -> str:
    segments = sum(n == 2 for n in sides)
    rest = [(n, title) for n, title in zip(sides, titles, strict=True) if n != 2]
    corner = boxes.get(segments, f"{segments}-{box}")
    if not rest:
        return corner
    if len(rest) == 1 and segments == 1:
        return f"{adjective(rest[0][0])} {one}" if rest[0][0] else f"{over} {article(rest[0][1])}"
    flat = [n for n, _ in rest] + [4] * (segments == 2)
    if len(flat) == 2 and segments in (0, 2) and all(n > 2 for n in flat):
        return "{},{}-{}".format(*sorted(flat), two)
    names = sorted(title for _, title in rest) + [corner] * bool(segments)
    listed = [article(name) for name in names]
    return f"{of} {', '.join(listed[:-1])} and {listed[-1]}"
