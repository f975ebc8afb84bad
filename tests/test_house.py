"""The house rules that no linter knows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "regauge").rglob("*.py"))
ARCHITECTURES = (
    r"llama|bert|gpt|opt_model|neox|qwen|gemma|mistral|mixtral|vit_|resnet|whisper|bloom|falcon|phi\d|smollm"
)
PARAMETERS = (
    r"\b(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv_proj|lm_head|c_attn|c_fc|embed_tokens|wte)\b"
)
NAMES = re.compile(f"{ARCHITECTURES}|{PARAMETERS}", re.IGNORECASE)


def without_docstrings_and_comments(text: str) -> str:
    text = re.sub(r'"""(?:.|\n)*?"""', "", text)
    return re.sub(r"#[^\n]*", "", text)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_no_architecture_is_named(path: Path) -> None:
    found = NAMES.findall(without_docstrings_and_comments(path.read_text()))
    assert not found, f"{path.name} names {found}: a rule speaks about an operator, never about one model"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_a_file_holds_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 450


def test_locks_pin_exactly_and_name_no_host() -> None:
    for lock in ("requirements.lock", "requirements-models.lock"):
        lines = [line for line in (ROOT / lock).read_text().splitlines() if line and not line.startswith("#")]
        assert lines
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in lines), lock
