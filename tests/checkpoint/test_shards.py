"""Tensors of a file in memory that is lent and used again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from regauge.checkpoint.ahead import Ahead
from regauge.checkpoint.buffers import Buffers
from regauge.checkpoint.shards import PAGE, SPARE, Entry, open_shards, placed
from regauge.errors import InputError


@pytest.mark.parametrize("first", [1, 2, 7, 513, 1999])
def test_wherever_a_tensor_lies_in_the_file(tmp_path: Path, first: int) -> None:
    g = torch.Generator().manual_seed(first)
    held = {name: torch.randn(n, 70, generator=g).bfloat16() for name, n in (("a", first), ("b", 1000), ("c", 1100))}
    save_file(held, tmp_path / "model.safetensors")
    shards = open_shards(tmp_path)
    buffer = torch.empty(2 * 1100 * 70 + SPARE, dtype=torch.uint8)
    for name, t in held.items():
        assert torch.equal(shards[name], t)
        assert torch.equal(shards.rows(name, 0, len(t), buffer), t)
    lent = Buffers(limit=1 << 20, most=1)  # each must come back before the next one
    with Ahead(tmp_path / "model.safetensors", list(shards.entries.values()), held, lent) as ahead:
        for entry, t in ahead:
            assert torch.equal(t, held[entry.name])
            lent.give(t)


def test_what_is_read_stands_apart_in_its_page() -> None:
    lent = Buffers(limit=1 << 20, most=1)
    for start in range(0, 2 * PAGE, 8):
        t = placed(lent.take((1 << 17) + SPARE), Entry("a", "f", "U8", (1 << 17,), start, 1 << 17))
        assert len(t) == 1 << 17 and not 0 < (t.data_ptr() - start) % PAGE < SPARE
        lent.give(t)


def test_a_file_that_was_cut(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1000, 1000)}, tmp_path / "model.safetensors")
    shards = open_shards(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as stream:
        stream.truncate(10_000)
    with pytest.raises(InputError, match="ends within a"):
        shards["a"]
