"""The code of README and docs runs, and the output they show is what the commands print."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+(?: slow)?)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CHANGING = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+| ?s\b| GiB)")  # errors, times, memory


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=ids)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, in order, in one namespace; a block may show what it prints in a comment `# -> ...`."""
    monkeypatch.chdir(tmp_path)
    run_blocks(page, "python")


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python slow")], ids=ids)
def test_slow_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that are fenced as `python slow`: they work on the packaged models."""
    if not (Path(sys.prefix) / "models").exists():
        pytest.skip("`make setup` links the packaged models")
    monkeypatch.chdir(tmp_path)
    Path(".venv").symlink_to(sys.prefix, target_is_directory=True)
    run_blocks(page, "python slow")


def run_blocks(page: Path, language: str) -> None:
    namespace: dict[str, object] = {"__name__": "docs"}
    for number, body in enumerate(blocks(page, language), 1):
        code = compile(body, f"{page.name}, block {number}", "exec")
        exec(code, namespace)
        for expression, shown in re.findall(r"^(?!#)(\S.*?)  # -> (.*)$", body, re.MULTILINE):
            assert str(eval(expression, namespace)) == shown, f"{page.name}, block {number}: {expression}"


def commands(page: Path) -> list[tuple[str, str]]:
    """Each `$ regauge ...` of a page with the output shown below it."""
    found = []
    for body in blocks(page, "console"):
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if command.startswith("regauge "):
                found.append((command, output))
    return found


SHOWN = [(page, command, output) for page in PAGES for command, output in commands(page)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "command", "output"), SHOWN, ids=lambda value: value if isinstance(value, str) else None
)
def test_commands_print_what_is_shown(
    page: Path, command: str, output: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from regauge.cli.app import run

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    if not (ROOT / ".venv" / "models").exists():
        pytest.skip("`make setup` links the packaged models")
    assert run(shlex.split(command)[1:]) == 0
    printed = {masked(line) for line in capfd.readouterr().out.splitlines()}
    missing = [line for line in output.splitlines() if line.strip() not in ("", "...") and masked(line) not in printed]
    assert not missing, f"{page.name} shows lines that `{command}` does not print: {missing}"


def masked(line: str) -> str:
    return re.sub(r"\s+", " ", CHANGING.sub("#", line)).strip()
