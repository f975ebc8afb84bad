"""`undo`: the checkpoint that a result of `apply` was made from, up to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regauge.checkpoint.weights import read_json
from regauge.errors import InputError
from regauge.jobs import files, packing
from regauge.jobs.apply import Progress, carry_out
from regauge.jobs.job import ELEMENT, RECORD, Settings, Tell
from regauge.jobs.layout import parse_size


def undo(
    source: str | Path,
    target: str | Path,
    *,
    verify: str = "full",
    force: bool = False,
    workers: int = 1,
    shard_size: int | str = "5GB",
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> dict[str, Any] | None:
    """Write into `target` what `source`, a result of `apply`, was before: the inverse of the element that stands beside its
    weights, and the ties and entries of config.json that it had. Options as for `apply`. The weights may have been trained
    since.

    Permutations and signs come back to the same bits; other elements to the rounding of the stored dtype. Raises InputError
    where the record or the element is missing or damaged, or another version of regauge counts the group differently.
    """
    source, target = Path(source), Path(target)
    for name in (RECORD, ELEMENT):
        if not (source / name).is_file():
            raise InputError(f"{source}: holds no {name}: only a result of `regauge apply` can be undone")
    record = read_json(source / RECORD)
    digest = files.sha256(source / ELEMENT)
    if record.get("element", {}).get("sha256") != digest:
        raise InputError(
            f"{source / ELEMENT}: is not the element that {RECORD} names: take both from one copy of the result"
        )
    if record.get("removed"):
        raise InputError(
            f"{source}: units were removed from it, and what they held is gone: take the checkpoint before"
        )
    held = record["settings"]
    settings = Settings(
        recipe={"undo": record["recipe"]},
        observe=held["observe"],
        unknown=held["unknown"],
        compute=record["compute"],
        shard_size=parse_size(shard_size) if isinstance(shard_size, str) else shard_size,
        keep_unused=held["keep_unused"],
        undo=digest,
        model=held["model"],
    )
    return carry_out(
        source, target, settings,
        lambda gauge, state: packing.load_element(source / ELEMENT, gauge.plan).inverse(),
        verify=verify, force=force, workers=workers, progress=progress, tell=tell,
    )  # fmt: skip
