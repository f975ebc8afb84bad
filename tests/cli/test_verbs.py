"""`inspect` and `verify` on small models: results, exit codes, JSON, and each kind of bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from regauge.cli.app import run

Captured = pytest.CaptureFixture[str]
WORDS = {"schema": int, "command": str, "model": dict, "observe": str, "notes": list, "seconds": dict,
         "peak_memory_bytes": int, "gauge": dict}  # fmt: skip
GAUGE = {
    "schema": int,
    "dim": int,
    "bonds": list,
    "families": list,
    "terms": list,
    "obstructions": list,
    "frozen": list,
}
BOND = {"name": str, "size": int, "group": str, "dim": int, "touches": list}
TOUCH = {"parameter": str, "axis": int, "side": str}
OBSTRUCTION = {"bond": str, "count": int, "text": str, "source": str, "cost": str}
TERM = {"label": str, "count": int, "each": int, "dim": int}
SOUND = {"dtype": str, "error": float, "floor": (float, type(None)), "limit": float, "ok": bool}
TIGHT = {"dim": int, "nullity": int, "gap": int, "parameters": int, "ok": bool}


def conforms(value: dict, schema: dict) -> bool:
    return set(schema) <= set(value) and all(isinstance(value[key], kind) for key, kind in schema.items())


def result(arguments: list[str], capsys: Captured, code: int = 0) -> dict:
    assert run([*arguments, "--json"]) == code
    captured = capsys.readouterr()
    assert captured.err == "" or code
    return json.loads(captured.out)


def test_inspect_json(capsys: Captured) -> None:
    found = result(["inspect", "models_for_cli:mlp"], capsys)
    assert conforms(found, WORDS) and conforms(found["gauge"], GAUGE)
    assert found["model"] == {"spec": "models_for_cli:mlp", "class": "Sequential", "parameters": 50}
    assert found["gauge"]["dim"] == 8
    (bond,) = [bond for bond in found["gauge"]["bonds"] if bond["dim"]]
    assert conforms(bond, BOND) and all(conforms(touch, TOUCH) for touch in bond["touches"])
    assert bond["size"] == 8 and bond["group"] == "R+ wr S8"
    assert {(t["parameter"], t["axis"]) for t in bond["touches"]} == {("0.weight", 0), ("0.bias", 0), ("2.weight", 1)}
    assert all(conforms(term, TERM) for term in found["gauge"]["terms"])
    assert sum(term["dim"] for term in found["gauge"]["terms"]) == 8


def test_inspect_at_weights(capsys: Captured) -> None:
    """The factory `twins` has two parallel units and one that nobody reads."""
    found = {s["kind"]: s for s in result(["inspect", "models_for_cli:twins", "--at-weights"], capsys)["strata"]}
    assert set(found["coincide"]["units"]) == {1, 6} and found["coincide"]["distance"] < 1e-6
    assert found["dead"]["units"] == [3] and found["dead"]["distance"] == 0 and found["dead"]["gain"] == 4
    assert run(["inspect", "models_for_cli:twins", "--at-weights"]) == 0
    assert "units 1 and 6 coincide" in " ".join(capsys.readouterr().out.split())
    assert run(["inspect", "models_for_cli:mlp", "--at-weights"]) == 0
    assert "generic: the nearest" in capsys.readouterr().out
    assert "strata" not in result(["inspect", "models_for_cli:mlp"], capsys)


def test_inspect_text(capsys: Captured) -> None:
    assert run(["inspect", "models_for_cli:mlp"]) == 0
    captured = capsys.readouterr()
    for words in (
        "models_for_cli:mlp",
        "50 parameters",
        "R+ wr S8",
        "dimension 8",
        "regauge verify models_for_cli:mlp",
    ):
        assert words in captured.out
    assert "tracing" in captured.err


def test_verify_json(capsys: Captured) -> None:
    found = result(["verify", "models_for_cli:mlp"], capsys)
    assert conforms(found, WORDS) and found["proved"] is True
    assert [check["dtype"] for check in found["checks"]["sound"]] == ["float32", "float64"]
    assert all(conforms(check, SOUND) and check["ok"] for check in found["checks"]["sound"])
    assert found["checks"]["sound"][1]["error"] < 1e-9
    assert found["checks"]["control"]["ok"] and found["checks"]["control"]["error"] > 1e-3
    assert conforms(found["checks"]["tight"], TIGHT)
    assert found["checks"]["tight"]["dim"] == found["checks"]["tight"]["nullity"] == 8


def test_verify_says_when_tightness_cannot_be_checked(capsys: Captured) -> None:
    assert run(["verify", "models_for_cli:large"]) == 0
    out = capsys.readouterr().out
    assert "not known to be tight" in out and "small" in out


def test_a_failed_check_exits_with_1(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """The gauge of another model: scales are no symmetry of silu."""
    from models_for_cli import mlp

    import regauge

    model, x = mlp()
    wrong = regauge.infer(model, (x,))
    monkeypatch.setattr(regauge, "infer", lambda *_, **__: wrong)
    assert run(["verify", "models_for_cli:smooth"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out and out.rstrip().endswith("not proved: a check failed")


def test_probabilities_have_more_symmetries_than_logits(capsys: Captured) -> None:
    logits = result(["inspect", "models_for_cli:mlp", "--observe", "logits"], capsys)
    probabilities = result(["inspect", "models_for_cli:mlp", "--observe", "probabilities"], capsys)
    # softmax does not see what is added to all logits: the rows' common shift, one for each of 8 units and for the bias
    assert probabilities["gauge"]["dim"] == logits["gauge"]["dim"] + 9


def test_pretrained_directory(saved: Path, capsys: Captured) -> None:
    found = result(["verify", str(saved)], capsys)
    assert found["proved"] is True and found["checks"]["tight"] is not None
    assert found["model"]["parameters"] == sum(t.numel() for t in load_file(saved / "model.safetensors").values())
    assert found["gauge"] == result(["inspect", str(saved)], capsys)["gauge"]


def test_program(tmp_path: Path, capsys: Captured) -> None:
    from models_for_cli import mlp

    model, x = mlp()
    torch.export.save(torch.export.export(model.eval(), (x,)), tmp_path / "mlp.pt2")
    found = result(["verify", str(tmp_path / "mlp.pt2")], capsys)
    assert found["proved"] is True and found["gauge"]["dim"] == 8


def test_html(tmp_path: Path, capsys: Captured) -> None:
    page = tmp_path / "page.html"
    assert run(["inspect", "models_for_cli:mlp", "--html", str(page)]) == 0
    assert "R+ wr S8" in page.read_text() and "dimension <b>8</b>" in page.read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def refused(arguments: list[str], capsys: Captured, code: int, *words: str) -> str:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert not [w for w in ("Traceback", "internal error", "def forward") if w in captured.err]
    assert captured.out == ""
    message = captured.err[captured.err.index("regauge: ") :]
    assert all(word in message for word in words), message
    return message


def test_operators_without_a_rule_are_listed_all_at_once(capsys: Captured) -> None:
    message = refused(["inspect", "models_for_cli:unsupported"], capsys, 3,
                      "regauge_tests.no_rule.default", "regauge_tests.no_rule_either.default", "models_for_cli.py:",
                      "freeze")  # fmt: skip
    assert "2" in message  # the first occurs twice


def test_frozen_operators_are_said(capsys: Captured) -> None:
    found = result(["inspect", "models_for_cli:unsupported", "--unknown", "freeze"], capsys)
    frozen = found["gauge"]["frozen"]
    assert sorted(text.split()[0] for text in frozen) == [
        "regauge_tests.no_rule.default",
        "regauge_tests.no_rule_either.default",
    ]
    assert found["gauge"]["dim"] == 0
    assert run(["verify", "models_for_cli:unsupported", "--unknown", "freeze"]) in (0, 1)
    assert "regauge_tests.no_rule.default" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["inspect", "verify"])
def test_data_dependent_branch(verb: str, capsys: Captured) -> None:
    refused([verb, "models_for_cli:branch"], capsys, 2, "models_for_cli.py:", "data-dependent")


def test_inputs_that_do_not_fit(capsys: Captured) -> None:
    refused(["inspect", "models_for_cli:wrong_input"], capsys, 2, "cannot trace", "[5, 4] X [3, 2]")


def test_nan_in_a_factory(capsys: Captured) -> None:
    refused(["verify", "models_for_cli:nan"], capsys, 2, "0.weight", "NaN", "[1, 2]")


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "damaged"))


def test_config_without_weights_can_be_inspected_but_not_verified(damaged: Path, capsys: Captured) -> None:
    (damaged / "model.safetensors").unlink()
    refused(["verify", str(damaged)], capsys, 2, "no weights", "regauge inspect")
    assert result(["inspect", str(damaged)], capsys)["gauge"]["dim"] > 0


def test_truncated_weights(damaged: Path, capsys: Captured) -> None:
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    refused(["verify", str(damaged)], capsys, 2, "truncated", "download it again")


@pytest.mark.parametrize("kind", ["nan", "shape"])
def test_wrong_weights(damaged: Path, kind: str, capsys: Captured) -> None:
    tensors = load_file(damaged / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name] * float("nan") if kind == "nan" else tensors[name][:-1].clone()
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    refused(["verify", str(damaged)], capsys, 2, name, "NaN" if kind == "nan" else "[47, 32]")
