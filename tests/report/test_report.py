"""Folding over layers, plain data, terminal text, and the HTML page."""

from __future__ import annotations

import io
import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from regauge.report import describe, inspection, page, verification
from regauge.solve.fold import fold, ranges

sys.path.insert(0, str(Path(__file__).parent))
from made_up import gauge, inspected  # noqa: E402


def unfold(text: str) -> set[str]:
    """The names that a folded name stands for; written apart from the code that folds."""
    head, brace, rest = text.partition("{")
    if not brace:
        return {text}
    body, _, tail = rest.partition("}")
    values: list[int] = []
    span, _, step = body.partition(" by ")
    for part in span.split(","):
        first, _, last = part.partition("..")
        values += range(int(first), int(last or first) + 1, int(step or 1))
    return {f"{head}{value}{end}" for value in values for end in unfold(tail)}


@given(st.sets(st.integers(0, 40), min_size=1))
def test_ranges_stand_for_the_numbers(numbers: set[int]) -> None:
    assert unfold(ranges(sorted(numbers))) == {str(n) for n in numbers}


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from(["q", "v"])), min_size=1))
def test_folded_names_stand_for_exactly_the_names_that_are_there(keys: set[tuple[int, int, str]]) -> None:
    names = [f"layers.{i}.experts.{j}.{leaf}1" for i, j, leaf in sorted(keys)]
    families = fold(names, lambda name: name, lambda _: None)
    unfolded = [name for family in families for name in unfold(family.name)]
    assert sorted(unfolded) == sorted(names)
    assert sorted(item for family in families for item in family.items) == sorted(names)


def test_what_differs_is_not_folded() -> None:
    items = [("layers.0.mlp", "S8"), ("layers.1.mlp", "S8"), ("layers.2.mlp", "S4")]
    families = fold(items, lambda item: item[0], lambda item: item[1])
    assert [family.name for family in families] == ["layers.{0..1}.mlp", "layers.2.mlp"]


def test_digits_inside_a_word_are_part_of_the_name() -> None:
    assert [f.name for f in fold(["fc1.weight", "fc2.weight"], lambda n: n, lambda _: None)] == [
        "fc1.weight",
        "fc2.weight",
    ]


def test_view_is_json_and_its_parts_add_up() -> None:
    made = gauge()
    view = describe(made)
    assert json.loads(json.dumps(view)) == view
    assert view["schema"] == 1
    assert len(view["bonds"]) == len(made.bonds) == 61
    assert sum(f["count"] for f in view["families"]) == len(view["bonds"])
    assert sum(f["dim"] for f in view["families"]) == sum(b["dim"] for b in view["bonds"]) == view["dim"]
    assert view["families"][0]["parameters"] == [
        "model.layers.{0..29}.mlp.up.weight",
        "model.layers.{0..29}.mlp.down.weight",
    ]
    assert [o["count"] for o in view["obstructions"]] == [30, 1]
    assert [o["gain"] for o in view["obstructions"]] == [360, 165_600]


def printed(renderable: object, width: int, color: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=color, highlight=False).print(renderable)
    return out.getvalue()


def test_text_says_it_all() -> None:
    text = printed(inspection(inspected()), 100)
    for words in ("model.layers.{0..29}.mlp", "R* wr S1536", "x30", "46,080", "dimension 414,720", "30 x 1,536",
                  "one tensor is embedding and head", "untie: + 28.3 M parameters", "model.py:88", "regauge verify",
                  "and 1 more with the trivial group", "1.00 GiB"):  # fmt: skip
        assert words in text, words
    assert text.isascii() or not set(text) - set("─") - {c for c in text if c.isascii()}


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_window_and_nothing_is_cut(width: int) -> None:
    text = printed(inspection(inspected()), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    assert "46,080" in text


def test_colour_only_on_a_terminal() -> None:
    assert "\x1b[" not in printed(inspection(inspected()), 80)
    assert "\x1b[" in printed(inspection(inspected()), 80, color=True)


def verified(ok: bool, tight: bool | None) -> dict:
    sound = [{"dtype": "float32", "error": 1e-6, "floor": 4e-7, "limit": 4e-6, "ok": ok}]
    control = {"error": 0.3, "moved": 2, "ok": True}
    view = None if tight is None else {"dim": 9, "nullity": 9 + (not tight), "gap": 0, "parameters": 800, "ok": tight}
    return {
        **inspected(),
        "checks": {"sound": sound, "control": control, "tight": view},
        "proved": ok and tight is not False,
        "details": [],
    }


@pytest.mark.parametrize(
    ("ok", "tight", "words"),
    [
        (True, True, "proved: sound and tight"),
        (True, None, "sound, and not known to be tight"),
        (False, True, "not proved: a check failed"),
        (True, False, "not proved: a check failed"),
    ],
)
def test_verdicts(ok: bool, tight: bool | None, words: str) -> None:
    text = printed(verification(verified(ok, tight)), 90)
    assert text.rstrip().endswith(words)
    assert ("FAILED" in text) == ("not proved" in words)


class Outside(HTMLParser):
    """Collects whatever would make a page depend on something else, and checks that tags match."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe") or any(name in ("src", "href") for name, _ in attrs):
            self.found.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_self_contained_and_escaped() -> None:
    view = describe(gauge())
    view["obstructions"][0]["text"] = "<script>alert(1)</script>"
    parser = Outside()
    html = page("a <model>", view)
    parser.feed(html)
    assert parser.found == [] and parser.open == []
    assert "414,720" in html and "a &lt;model&gt;" in html
