"""`regauge polytope` as a shell sees it."""

import json

import pytest
import typer
from typer.testing import CliRunner

from regauge.cli.polytope import polytope
from regauge.errors import InputError

app = typer.Typer()
app.command()(polytope)


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_table_and_files(tmp_path):
    page, solid = tmp_path / "page.html", tmp_path / "body.glb"
    done = run("--dim", 3, "--units", 6, "--activation", "abs", "--out", page, "--out", solid)
    assert done.exit_code == 0, done.output
    for words in ("icosidodecahedron", "0.0395899", "30, 60, 32", "120 (60 rotations)", "floating point"):
        assert words in done.output
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>") and solid.read_bytes()[:4] == b"glTF"


def test_json():
    done = run("--dim", 2, "--units", 3, "--activation", "relu", "--json", "--exact")
    answer = json.loads(done.output)
    assert answer["polytope"] == "regular hexagon" and answer["certified"] and answer["f_vector"] == [6, 6]
    assert len(answer["vertices"]) == 6 and answer["rms"] == pytest.approx(0.0419297, abs=1e-7)


def test_more_layers():
    done = run("--dim", 2, "--units", 2, "--units", 2, "--steps", 50, "--json")
    assert done.exit_code == 0 and json.loads(done.output)["f_vector"]


def test_mistakes_are_found_before_the_work(tmp_path):
    stands = tmp_path / "page.html"
    stands.write_text("mine")
    for arguments, words in (
        (("--out", stands), "exists"),
        (("--out", tmp_path / "a.xyz"), "unknown format"),
        (("--dim", 4, "--out", tmp_path / "a.obj"), "at most 3"),
        (("--dim", 1), "at least 2"),
    ):
        done = run(*arguments)
        assert isinstance(done.exception, InputError) and words in str(done.exception)
    assert stands.read_text() == "mine"
    assert run("--out", stands, "--force", "--units", 3).exit_code == 0
