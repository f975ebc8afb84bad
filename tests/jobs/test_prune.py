"""Redundant units leave a checkpoint: the width in config.json follows, transformers loads it, the function stays."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from models import contents, error, outputs, save, tensors
from safetensors.torch import load_file, load_model, save_file
from torch import Tensor, nn

from regauge.errors import CheckError, InputError
from regauge.jobs.apply import apply
from regauge.jobs.undo import undo


def redundant(folder: Path, up: str, down: str, *, transposed: bool = False, twins: int = 1) -> Path:
    """In every layer unit 5 becomes a copy of unit 2, and nothing reads unit 7."""
    for file in folder.glob("*.safetensors"):
        held = load_file(file)
        for name, t in held.items():
            columns = t if t.ndim == 1 or not transposed else t.T
            if re.search(up, name):
                columns[5 : 5 + twins] = columns[2:3]
            if re.search(down, name):
                columns[:, 7] = 0
        save_file(held, file, metadata={"format": "pt"})
    return folder


UP, DOWN = r"mlp\.(gate|up)_proj", r"mlp\.down_proj"


def test_the_width_follows(tmp_path: Path) -> None:
    a, b = redundant(save("llama", tmp_path / "a"), UP, DOWN), tmp_path / "b"
    record = apply(a, b, ["prune-redundant"])
    assert record is not None and record["verify"]["ok"] and record["verify"]["exact"]["error"] < 1e-13
    before, after = (json.loads((f / "config.json").read_text()) for f in (a, b))
    assert {k for k in after if after[k] != before[k]} == {"intermediate_size"}
    assert after["intermediate_size"] == before["intermediate_size"] - 2
    assert error(outputs(a), outputs(b)) < 1e-6
    old, new = tensors(a), tensors(b)
    assert {n for n in old if not torch.equal(old[n], new[n])} == {n for n in old if re.search(f"{UP}|{DOWN}", n)}
    kept = [i for i in range(old["model.layers.0.mlp.up_proj.weight"].shape[0]) if i not in (7, *_gone(record))]
    assert torch.equal(old["model.layers.0.mlp.up_proj.weight"][kept], new["model.layers.0.mlp.up_proj.weight"])
    with pytest.raises(InputError, match="units were removed"):
        undo(b, tmp_path / "c")


def _gone(record: dict) -> list[int]:
    return [k for k, _ in record["removed"][0]["merged"]]


def test_one_width_for_all_layers(tmp_path: Path) -> None:
    """Every layer loses as many units as the one that has the fewest to lose, and the others are named."""
    a, b = save("llama", tmp_path / "a"), tmp_path / "b"
    redundant(a, r"layers\.0\.mlp\.(gate|up)_proj", r"layers\.0\.mlp\.down_proj")
    with pytest.raises(InputError, match="intermediate_size = 23 sets the width of 2 layers together.*layers.1"):
        apply(a, b, ["prune-redundant"])
    redundant(a, "nothing", r"layers\.1\.mlp\.down_proj")
    record = apply(a, b, ["prune-redundant"], verify="sample")
    assert record is not None and record["verify"]["ok"]
    assert [len(r["dead"]) + len(r["merged"]) for r in record["removed"]] == [1, 1]
    assert any("1 more redundant unit(s) stay" in n for n in record["notes"])
    assert error(outputs(a), outputs(b)) < 1e-6


def test_nothing_redundant(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no unit is redundant"):
        apply(save("llama", tmp_path / "a"), tmp_path / "b", ["prune-redundant"])
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "up", "down", "entry"),
    [
        ("bert", r"intermediate\.dense", r"layer\.\d+\.output\.dense\.weight", "intermediate_size"),
        ("gpt2", r"mlp\.c_fc", r"mlp\.c_proj\.weight", "n_inner"),  # null in the file: four times the width
        ("t5", r"DenseReluDense\.wi", r"DenseReluDense\.wo", "d_ff"),
        ("phi3", "nothing", DOWN, "intermediate_size"),  # gate and up are one tensor
        (
            "vit",
            r"(intermediate\.dense|mlp\.fc1)",
            r"(\d\.output\.dense\.weight|mlp\.fc2\.weight)",
            "intermediate_size",
        ),
    ],
)
def test_the_entry_is_found_by_trying(kind: str, up: str, down: str, entry: str, tmp_path: Path) -> None:
    a, b = save(kind, tmp_path / "a"), tmp_path / "b"
    redundant(a, up, down, transposed=kind == "gpt2")
    record = apply(a, b, ["prune-redundant"])
    assert record is not None and record["verify"]["exact"]["error"] < 1e-13
    assert [list(p["path"]) for p in record["config"]] == [[entry]]
    assert error(outputs(a), outputs(b)) < 1e-6
    assert sum(t.numel() for t in tensors(b).values()) < sum(t.numel() for t in tensors(a).values())


@pytest.mark.slow
def test_constant_units_go_into_the_next_bias(tmp_path: Path) -> None:
    """Two in every layer, whose input is not read; the biases behind change, and nothing else but the width."""
    a, b = save("gpt2", tmp_path / "a"), tmp_path / "b"
    for file in a.glob("*.safetensors"):
        held = load_file(file)
        for name, t in held.items():
            if name.endswith("mlp.c_fc.weight"):
                t[:, [3, 4]] = 0
            if name.endswith("mlp.c_fc.bias"):
                t[3], t[4] = 0.8, -0.4
        save_file(held, file, metadata={"format": "pt"})
    record = apply(a, b, ["prune-redundant"])
    assert record is not None and record["verify"]["exact"]["error"] < 1e-13
    assert all(sorted(r["constant"]) == [3, 4] and not r["dead"] for r in record["removed"])
    assert error(outputs(a), outputs(b)) < 1e-6
    old, new = tensors(a), tensors(b)
    changed = {re.sub(r".*mlp\.", "", n) for n in old if not torch.equal(old[n], new[n])}
    assert changed == {"c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias"}


@pytest.mark.slow
def test_a_width_that_no_entry_sets(tmp_path: Path) -> None:
    a = save("bloom", tmp_path / "a")
    redundant(a, r"dense_h_to_4h\.", r"dense_4h_to_h\.weight")
    with pytest.raises(InputError, match="no entry of config.json sets the width"):
        apply(a, tmp_path / "b", ["prune-redundant"])


@pytest.mark.slow
def test_after_other_steps_and_within_a_tolerance(tmp_path: Path) -> None:
    """In other gauges the copies differ by rounding; then how near is near enough is for the user to say."""
    a, b, c, d = redundant(save("llama", tmp_path / "a"), UP, DOWN), *(tmp_path / n for n in "bcd")
    apply(a, b, ["fold", {"random": {"seed": 2}}])
    record = apply(b, c, ["prune-redundant"])
    assert record is not None and all(
        r["merged"] == [] for r in record["removed"]
    )  # dead is dead, whatever the rounding
    record = apply(b, d, [{"balance": {"norm": "l2"}}, {"prune-redundant": {"tolerance": 1e-5}}])
    assert record is not None and [len(r["merged"]) for r in record["removed"]] == [1, 1] and record["verify"]["ok"]
    assert error(outputs(a), outputs(d)) < 1e-5
    held = {p: b / p for p in contents(b) if p.endswith(".safetensors")}
    for path in held.values():
        made = {n: t * (1.3 if "mlp.up_proj" in n else 1) for n, t in load_file(path).items()}
        save_file(made, path, metadata={"format": "pt"})
    with pytest.raises(CheckError, match="the function changed"):  # far too tolerant
        apply(b, c, [{"prune-redundant": {"tolerance": 0.9}}], force=True)


class Conv(nn.Module):
    """Channels through a batch norm, then flattened: six pixels a channel; a head tied to nothing."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Linear(width * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).relu().flatten(1))


def conv() -> tuple[nn.Module, tuple[Tensor]]:
    torch.manual_seed(0)
    model = Conv().eval()
    with torch.no_grad():
        for n, t in model.state_dict().items():
            if t.is_floating_point():
                t.add_(torch.rand(t.shape, generator=torch.Generator().manual_seed(len(n))))
            if n.startswith(("first", "norm")) and t.ndim:
                t[3] = t[0]
        model.norm.weight[5], model.norm.bias[5] = 0, 0
    return model, (torch.randn(3, 2, 4, 5),)


@pytest.mark.parametrize("kind", ["factory", "program"])
def test_a_module_without_a_config(kind: str, tmp_path: Path) -> None:
    spec = f"{__name__}:conv"
    if kind == "program":
        spec = str(tmp_path / "conv.pt2")
        torch.export.save(torch.export.export(*conv()), spec)
    record = apply(spec, tmp_path / "b", ["prune-redundant"])
    assert record is not None and record["verify"]["ok"] and record["verify"]["exact"]["error"] < 1e-13
    assert "last.weight[1]: 48 -> 36" in record["notes"] and "norm.running_mean[0]: 8 -> 6" in record["notes"]
    model, (x,) = conv()
    small = Conv(6).eval()
    load_model(small, tmp_path / "b" / "model.safetensors")
    assert float((small(x) - model(x)).abs().max()) < 1e-5 * float(model(x).abs().max())
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["b"]


def test_a_module_in_another_gauge_and_back(tmp_path: Path) -> None:
    spec = f"{__name__}:conv"
    record = apply(spec, tmp_path / "b", [{"random": {"seed": 3}}])
    assert record is not None and record["verify"]["ok"]
    model, (x,) = conv()
    moved, back = Conv().eval(), Conv().eval()
    load_model(moved, tmp_path / "b" / "model.safetensors")
    assert float((moved(x) - model(x)).abs().max()) < 1e-4 * float(model(x).abs().max())
    assert not torch.equal(moved.first.weight, model.first.weight)
    undo(tmp_path / "b", tmp_path / "c")
    load_model(back, tmp_path / "c" / "model.safetensors")
    assert torch.allclose(back.first.weight, model.first.weight, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="untie it in the module"):
        apply(spec, tmp_path / "d", ["untie"])
