"""From a text to a table and a figure, in the library and on the command line."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from regauge.cli.paths import paths
from regauge.errors import CheckError, InputError
from regauge.pathsum import solve
from regauge.pathsum.figure import check_file, correlator_series, mass_series, panels, write_figure
from regauge.pathsum.solve import SAMPLERS
from regauge.pathsum.svg import Curve, Panel, svg, ticks

APP = typer.Typer(pretty_exceptions_enable=False)
APP.command()(paths)
TINY = ["--beta", "4", "--sites", "12", "--samples", "2000"]
SMALL = [*TINY, "--no-figure"]


@pytest.fixture(scope="module")
def answer():
    return solve("x**2/2 + x**4", beta=6.0, sites=24, samples=4000)


def test_the_table_is_right_and_printable(answer):
    assert not answer.doubts and answer.sample.efficiency > 0.85
    assert all(abs(row.pull) < 3.5 for row in answer.rows)
    text = str(answer)
    assert "E0 = 0.8037706512" in text and "<x^2>" in text and "pull" in text


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s not in ("nuts", "instanton")])
def test_every_sampler_is_in_reach(sampler):
    found = solve("x**2/2 + x**4", beta=4.0, sites=12, samples=4000, sampler=sampler)
    assert all(abs(row.pull) < 4 for row in found.rows)


def test_auto_takes_the_instanton_prior_for_double_wells():
    found = solve("(x**2-2)**2/4", beta=6.0, sites=24, samples=4000)
    assert "instanton" in found.sample.sampler and found.sample.efficiency > 0.5 and found.sample.evaluations > 1
    assert all(abs(row.pull) < 3.5 for row in found.rows)


def test_what_cannot_be_believed_is_said():
    found = solve("(x**2-6)**2/4", beta=20.0, sites=32, samples=1300, sampler="hmc")
    assert any("chains disagree" in doubt for doubt in found.doubts)
    kinked = solve("abs(x)", beta=4.0, sites=12, samples=2000)
    assert kinked.exact is None and kinked.rows[0].exact is None and "two grids differ" in kinked.missing[0]


def test_open_ends(tmp_path):
    found = solve("x**2/2 + x**4", beta=4.0, sites=13, samples=4000, ends="open")
    assert all(abs(row.pull) < 3.5 for row in found.rows)
    write_figure(found, tmp_path / "open.svg")


def test_series_agree_with_the_exact_ones(answer):
    c, m = correlator_series(answer), mass_series(answer)
    assert len(c.times) == 13 and np.abs((c.value - c.exact) / c.error).max() < 4
    assert len(m.times) >= 3 and np.abs((m.value - m.exact) / m.error).max() < 4
    assert m.exact[-1] == pytest.approx(answer.exact.gap, rel=0.05)


def test_figures(answer, tmp_path):
    file = tmp_path / "paths.svg"
    write_figure(answer, file)
    root = ET.parse(file).getroot()
    kinds = [element.tag.split("}")[1] for element in root.iter()]
    assert kinds.count("polyline") == 8 + 2 and kinds.count("circle") > 13  # paths, two exact curves, estimates
    assert "exact" in file.read_text() and "V = x**2/2 + x**4" in file.read_text()
    with pytest.raises(InputError, match="exists"):
        write_figure(answer, file)
    write_figure(answer, file, force=True)
    for name, words in (("paths.png", "svg or a .html"), ("none/paths.svg", "does not exist")):
        with pytest.raises(InputError, match=words):
            check_file(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["paths.svg"]
    assert [panel.title for panel in panels(answer)] == ["8 sample paths", "correlator", "effective mass"]


def test_an_interactive_page_stands_alone(answer, tmp_path):
    pytest.importorskip("plotly")
    write_figure(answer, tmp_path / "paths.html")
    page = (tmp_path / "paths.html").read_text()
    assert "correlator" in page and "<script src=" not in page


def test_svg_escapes_and_empty_panels():
    drawn = svg([Panel("a<b", "t", "y", [Curve(np.arange(3.0), np.full(3, np.nan))]), Panel("none", "t", "y")], "x & y")
    assert ET.fromstring(drawn) is not None
    assert ticks(0, 1).tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_the_command_prints_a_table():
    result = CliRunner().invoke(APP, ["--potential", "x**2/2 + x**4", *SMALL])
    assert result.exit_code == 0
    for words in ("estimate", "pull", "<x^2>", "E0 = 0.8037706512", "effective samples per path"):
        assert words in result.output


def test_the_command_names_its_figure_and_overwrites_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("paths.svg", "paths-2.svg"):
        result = CliRunner().invoke(APP, ["--potential", "x**2", *TINY, "--sampler", "elliptical"])
        assert result.exit_code == 0 and f"figure: {name}" in result.output and "R-hat" in result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["paths-2.svg", "paths.svg"]


def test_the_free_energy_is_the_ground_state_at_low_temperature():
    found = solve("x**2/2 + x**4", beta=12.0, sites=48, samples=4000)
    row = next(row for row in found.rows if row.name == "free energy")
    assert row.exact == pytest.approx(found.exact.ground, abs=1e-9) and abs(row.pull) < 4 and row.average.error < 0.002


def test_the_command_writes_json_and_a_figure(tmp_path):
    out = tmp_path / "a.svg"
    result = CliRunner().invoke(
        APP, ["-V", "x**4 + y**4 + x*y/3", *TINY, "--json", "--out", str(out), "--mass", "1", "--mass", "2"]
    )
    assert result.exit_code == 0 and out.exists()
    plain = json.loads(result.output)
    assert [
        row["name"].split(" (")[0] for row in plain["rows"]
    ] == "energy|free energy|<x>|<x^2>|gap x|<y>|<y^2>|gap y".split("|")
    assert all(abs(row["pull"]) < 4 for row in plain["rows"]) and plain["doubts"] == [] and plain["figure"] == str(out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-V", "x**2 - x**4"], "unbounded below"),
        (["-V", "open('f')"], "not allowed"),
        (["-V", "x**2", "--beta", "-1"], "positive beta"),
        (["-V", "x**2", "--sites", "1"], "at least 2 sites"),
        (["-V", "x**2", "--samples", "3"], "need at least"),
        (["-V", "x**2", "--mass", "1", "--mass", "1"], "masses"),
        (["-V", "x**2", "--mass", "0"], "positive"),
        (["-V", "x**2", "--out", "a.pdf"], r"\.svg or a \.html"),
    ],
)
def test_wrong_input_is_named_before_any_work(arguments, words):
    result = CliRunner().invoke(APP, arguments)
    assert isinstance(result.exception, InputError)
    with pytest.raises(InputError, match=words):
        raise result.exception


def test_a_doubtful_answer_fails_the_command():
    result = CliRunner().invoke(
        APP,
        [
            "-V",
            "(x**2-6)**2/4",
            "--beta",
            "20",
            "--sites",
            "32",
            "--samples",
            "1300",
            "--sampler",
            "hmc",
            "--no-figure",
        ],
    )
    assert isinstance(result.exception, CheckError) and "cannot be trusted" in str(result.exception)
    assert "estimate" in result.output
