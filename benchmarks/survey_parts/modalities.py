"""Inputs of types that read more than tokens: by the names in the signature of ``forward``, sized by the configuration.

Names do not say everything: an image may have an axis for its crops, and a sound one for its channel. So several inputs
are offered, the most complete first; what reads images or sounds beside tokens is offered its tokens alone at last.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from regauge.checkpoint.shrink import config_nodes

from .inputs import SEQUENCE, token_ids

BATCH = 3
Shape = tuple[int, ...]
Offer = dict[str, Any]


def candidates(model: Any, config: Any, seed: int) -> Iterator[Offer]:
    """Inputs to try, in order."""
    names = inspect.signature(model.forward).parameters
    rng = torch.Generator().manual_seed(seed + 1)
    tokens = _tokens(names, config, seed)
    sensed = [[{name: make(shape, rng)} for shape in shapes(config)] for name, shapes, make in SENSES if name in names]
    if not sensed and not tokens and "past_values" in names:
        sensed = [[{"past_values": torch.randn(_series(config), generator=rng)}]]
    needed = {n: make(config, rng) for n, make in NEEDED.items() if n in names}
    required = {n: needed[n] for n, p in names.items() if n in needed and p.default is inspect.Parameter.empty}
    for parts in itertools.product(*sensed):
        offer = tokens | {k: v for part in parts for k, v in part.items()}
        yield offer | required
        if needed.keys() - required.keys():
            yield offer | needed
    if sensed and tokens:
        yield tokens | required
    for one in sensed if len(sensed) > 1 else ():
        for part in one:
            yield part | required


def _tokens(names: Any, config: Any, seed: int) -> Offer:
    found = {}
    if "input_ids" in names:
        found["input_ids"] = token_ids(config, seed, batch=BATCH)
    if "decoder_input_ids" in names:
        found["decoder_input_ids"] = token_ids(config, seed + 1, batch=BATCH, sequence=SEQUENCE - 2)
    return found


def with_placeholders(config: Any, inputs: Offer, complaint: str) -> Offer | None:
    """Tokens that stand for what the model read beside them, as many as it says that it wants; None if it says no such
    thing."""
    counts = re.search(r"tokens:? (\d+)\D+(\d+)", complaint)
    kind = "audio" if "udio" in complaint else "video" if "ideo" in complaint else "image"
    token = find(config, f"{kind}_token_id", f"{kind}_token_index", default=None)
    if counts is None or token is None or "input_ids" not in inputs or int(counts[1]):
        return None
    rows = inputs["input_ids"]
    each, rest = divmod(int(counts[2]), len(rows))
    if rest or not each:
        return None
    return inputs | {"input_ids": torch.cat([rows[:, :2], torch.full((len(rows), each), token), rows[:, 2:]], 1)}


# -- what is sensed: shapes, the likeliest first ------------------------------------------------------------------


def image_shapes(config: Any) -> list[Shape]:
    """One image for each example; with an axis for crops; a pair; a film; rows of flattened patches."""
    size = find(config, "image_size", "input_size", default=64)
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    channels = find(config, "num_channels", "in_chans", "in_channels", default=3)
    patch = find(config, "patch_size", default=4)
    patch = patch if isinstance(patch, int) else patch[-1]
    flat = channels * patch * patch
    images = [
        (BATCH, n, h, w) for n in dict.fromkeys((channels, 3, 1)) for h, w in dict.fromkeys(((height, width), (64, 64)))
    ]
    frames = find(config, "num_frames", "frames_per_clip", default=4)
    return [*images, *((BATCH, k, *images[0][1:]) for k in (1, 2, frames)), (BATCH, 9, flat), (BATCH * 9, flat)]


def video_shapes(config: Any) -> list[Shape]:
    batch, *image = image_shapes(config)[0]
    return [(batch, find(config, "num_frames", "frames_per_clip", default=4), *image)]


def wave_shapes(config: Any) -> list[Shape]:
    bins = find(config, "num_mel_bins", default=0)
    spectra = [(BATCH, find(config, "max_length", default=64), bins)] if bins else []
    return [*spectra, (BATCH, 2000), (BATCH, 1, 2000)]


def feature_shapes(config: Any) -> list[Shape]:
    """Bins before frames where the configuration counts positions, else frames before bins; then the other way."""
    bins = find(
        config,
        "num_mel_bins",
        "input_feat_per_channel",
        "input_feat_size",
        "feature_size",
        "input_dim",
        "mel_bins",
        default=16,
    )
    length = 2 * find(config, "max_source_positions", default=16)
    whole = "max_source_positions" in fields(config)
    shapes = [(BATCH, bins, length), (BATCH, length, bins)]
    return [
        *(shapes if whole else reversed(shapes)),
        (BATCH, 1, length, bins),
        (BATCH, length, 128),
        (BATCH, 128, length),
    ]


def _series(config: Any) -> Shape:
    return (BATCH, find(config, "context_length", default=16), find(config, "num_input_channels", default=1))


def _normal(shape: Shape, rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng)


SENSES: tuple[tuple[str, Callable[[Any], list[Shape]], Callable[[Shape, torch.Generator], Tensor]], ...] = (
    ("pixel_values", image_shapes, _normal),
    ("pixel_values_videos", video_shapes, _normal),
    ("input_values", wave_shapes, _normal),
    ("input_features", feature_shapes, _normal),
)


# -- what goes with it --------------------------------------------------------------------------------------------


def _boxes(config: Any, rng: torch.Generator) -> Tensor:
    """Corners of boxes, upper left before lower right, inside the smallest table that a box can index."""
    most = find(config, "max_2d_position_embeddings", default=1000)
    corners = torch.randint(0, max(2, most // 2), (BATCH, SEQUENCE, 2, 2), generator=rng)
    return corners.cumsum(2).flatten(2).clamp_max(most - 1)


def _all(*shape: int) -> Callable[[Any, torch.Generator], Tensor]:
    return lambda config, rng: torch.ones(BATCH, *shape, dtype=torch.long)


NEEDED: dict[str, Callable[[Any, torch.Generator], Any]] = {
    "bbox": _boxes,
    "query_embeds": lambda c, rng: torch.randn(BATCH, 3, find(c, "hidden_size", default=24), generator=rng),
    "pixel_attention_mask": lambda c, rng: torch.ones(BATCH, *image_shapes(c)[0][2:], dtype=torch.bool),
    "input_features_mask": lambda c, rng: torch.ones(
        feature_shapes(c)[0][0], feature_shapes(c)[0][-1], dtype=torch.bool
    ),
}


def fields(config: Any) -> dict[str, Any]:
    return {k: v for node in reversed(list(config_nodes(config))) for k, v in vars(node).items()}


def find(config: Any, *names: str, default: Any) -> Any:
    known = fields(config)
    return next((known[n] for n in names if isinstance(known.get(n), (int, list, tuple)) and known[n]), default)
