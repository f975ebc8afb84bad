"""What the shell sees before any compiling: usage, versions, bad input, and how much is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import regauge
from regauge.cli.app import run


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["verify", "-h"], ["--version"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    assert "regauge" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["inspect"], ["no-such-verb"], ["inspect", "m", "--observe", "nothing"], ["verify", "m", "--unknown", "guess"],
     ["inspect", "m", "--no-such-option"], ["inspect", "a", "b"]],
)  # fmt: skip
def test_bad_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["inspect", "verify"])
def test_missing_path_is_one_sentence(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "no/such/place/at/all"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    message = captured.err.splitlines()[-1]
    assert message.startswith("regauge: no/such/place/at/all: no such file or directory: ")


def test_errors_in_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "no/such/place/at/all", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "InputError" and error["exit_code"] == 2 and "no such file" in error["message"]


def test_a_fault_of_ours_has_no_traceback_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr("regauge.cli.inspect.inspect", fault)
    assert run(["inspect", "m"]) == 2
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and "REGAUGE_DEBUG=1" in err and "Traceback" not in err
    monkeypatch.setenv("REGAUGE_DEBUG", "1")
    assert run(["inspect", "m"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_html_never_replaces_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert run(["inspect", "m", "--html", str(page)]) == 2
    assert "--force" in capsys.readouterr().err
    assert page.read_text() == "mine"


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines())


def test_help_imports_neither_torch_nor_transformers() -> None:
    loaded = modules_after("from regauge.cli.app import run; assert run(['--help']) == 0")
    assert "typer" in loaded
    assert not loaded & {"torch", "transformers", "numpy", "scipy"}


def test_import_adds_nothing_but_itself() -> None:
    loaded = modules_after("import torch; before = set(sys.modules); import regauge; "
                           "print(*(set(sys.modules) - before), sep='\\n')")  # fmt: skip
    assert not {name for name in loaded if name.split(".")[0] in ("transformers", "scipy", "rich", "typer")}


def test_public_names() -> None:
    assert {"infer", "Gauge", "check", "errors"} <= set(dir(regauge))
    with pytest.raises(AttributeError, match="no attribute 'infre'"):
        regauge.infre  # noqa: B018
