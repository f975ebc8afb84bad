"""Shrink a model's configuration to a tiny one of the same architecture.

A small copy carries the same symmetries as the model itself, block for block, and is cheap to build, to trace and to
prove. Configurations are read by the *meaning* of their fields (a size, a count, a rank, a pattern), never by the kind
of model: what a field is called says what it counts.

Kept: every kind of layer, the ratio of query to key/value heads when it exceeds one, whether a rotary embedding is
partial, whether experts come in groups, equality of sizes that were equal and stood for one axis. Shrunk: everything
else, to sizes that differ from one another where the architecture allows it, so that a size identifies an axis; bounds on
values, to what small weights reach.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any

from .fields import (
    DENSE_FIRST_FIELD,
    EXPERT_FIELD,
    FEED_FORWARD_FIELD,
    HEAD_DIM_FIELD,
    HEAD_FIELD,
    KV_FIELD,
    LAYER_FIELD,
    LAYER_NUMBERS,
    LIMIT_FIELD,
    PERIOD_FIELD,
    REACHED,
    ROTARY_FACTORS,
    SHARED_FIELD,
    STAGE_FIELD,
    TOKEN_FIELD,
    TOP_K_FIELD,
    WIDTH_FIELDS,
    Scale,
    field_rules,
)


def shrink_config(
    config: Any, *, width: int = 24, layers: int = 2, vocabulary: int = 61, positions: int = 13, experts: int = 5
) -> Any:
    """A tiny configuration of the same architecture as ``config``.

    Args:
        config: any `transformers.PretrainedConfig`, nested ones included. It is not changed.
        width: size of the main hidden axis (a multiple of 4); feed-forward about twice that.
        layers: least number of layers of each stack; more if there are more kinds of layer than that.
        vocabulary: number of tokens of the main vocabulary.
        positions: rows of a learned position table.
        experts: number of experts of a mixture that has no groups of them; two are chosen.

    Returns:
        A new configuration of the same class, with eager experts batched and the cache switched off.
    """
    small = copy.deepcopy(config)
    scale = Scale(width=width, layers=layers, vocabulary=vocabulary, positions=positions, experts=experts)
    nodes = list(config_nodes(small))
    for node in sorted(nodes, key=lambda n: not _has_text(n)):
        size = _hidden_size(node)
        if isinstance(size, int) and size > 4:
            scale.width_of(size)
    for node in nodes:
        if isinstance(_get(node, "vocab_size"), int):
            scale.vocabulary_of(_get(node, "vocab_size"))
    for node in nodes:
        shrink_node(node, scale)
    return small


def config_nodes(config: Any) -> Iterable[Any]:
    """A configuration and the configurations nested in it, outermost first."""
    yield config
    for name, value in list(vars(config).items()):
        if _is_config(value) and not name.startswith("_"):
            yield from config_nodes(value)


def shrink_node(node: Any, scale: Scale) -> None:
    """Shrink the fields of one configuration in place; nested configurations are nodes of their own."""
    old = {k: v for k, v in vars(node).items() if not _is_config(v)}
    new: dict[str, Any] = {}
    shrink_layers(old, new, scale)
    shrink_attention(old, new, scale)
    shrink_experts(old, new, scale)
    shrink_state_space(old, new, scale)
    shrink_stages(old, new, scale)
    shrink_outputs(old, new)
    shrink_image(old, new)
    for name, value in old.items():
        if name not in new and not name.startswith("_"):
            changed = shrink_field(name, value, old, scale)
            if changed is not None:
                new[name] = changed
    shrink_rotary(old, new, scale)
    shrink_overrides(old, new)
    if "use_cache" in old:
        new["use_cache"] = False
    for name, value in new.items():
        _set(node, name, value)


def shrink_layers(old: dict[str, Any], new: dict[str, Any], scale: Scale) -> None:
    """Fewer layers, of every kind: lists with one entry for each layer keep a position for each value they hold, lists of
    layer numbers keep one inside and one outside."""
    counts = {k: v for k, v in old.items() if LAYER_FIELD.match(k) and isinstance(v, int) and not isinstance(v, bool)}
    if not counts:
        return
    depth = old.get("num_hidden_layers", max(counts.values()))
    lists = {
        k: v
        for k, v in old.items()
        if isinstance(v, (list, tuple))
        and len(v) == depth > 2
        and not isinstance(v[0], (list, tuple, dict))
        and list(v) != list(range(depth))
        and not STAGE_FIELD.search(k)
    }
    numbers = {
        k: v
        for k, v in old.items()
        if LAYER_NUMBERS.search(k) and k not in lists and isinstance(v, (list, tuple)) and v and _integers(v)
    }
    spec = old.get("_heterogeneity_spec")
    overrides = getattr(spec, "per_layer_overrides", {})
    shared = next((v for k, v in old.items() if SHARED_FIELD.match(k) and isinstance(v, int)), 0)
    inside = [v for k, v in numbers.items() if set(v) < set(range(depth)) and not STAGE_FIELD.search(k)]
    parts = [
        (i >= depth - shared, *(str(v[i]) for v in lists.values()), *(str(i in v) for v in inside))
        for i in range(depth)
    ]
    keys = (
        [
            tuple((part[0], value) for value in part[1:]) + (str(sorted(overrides.get(i, {}).items(), key=str)),)
            for i, part in enumerate(parts)
        ]
        if lists or inside or overrides
        else []
    )
    kept = cover(keys, scale.layers) if keys else list(range(min(depth, scale.layers)))
    for name, value in lists.items():
        new[name] = type(value)(_entry(name, value[i], scale) for i in kept)
    for name, count in counts.items():
        new[name] = len(kept) if count == depth else min(count, scale.layers)
    for name in old:
        if SHARED_FIELD.match(name) and isinstance(old[name], int):
            new[name] = sum(i >= depth - shared for i in kept)
    for name, value in numbers.items():
        if name not in new:
            new[name] = type(value)([kept.index(v) for v in value if v in kept] or [len(kept) - 1])
    if spec is not None:
        spec.per_layer_overrides = {n: dict(overrides[i]) for n, i in enumerate(kept) if i in overrides}


def _integers(values: Iterable[Any]) -> bool:
    return all(isinstance(v, int) for v in values)


def shrink_overrides(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Sizes that differ between layers keep their ratio to the size of the others."""
    for name, value in new.items():
        size = name.removesuffix("_per_layer")
        if isinstance(value, list) and size != name and type(old.get(size)) is int:
            new[name] = [max(1, round(v / old[size] * new[size])) for v in value]
    spec = old.get("_heterogeneity_spec")
    for changes in getattr(spec, "per_layer_overrides", {}).values():
        for name, value in changes.items():
            if type(value) is int and type(old.get(name)) is int and name in new:
                changes[name] = max(1, round(value / old[name] * new[name]))


def _entry(name: str, value: Any, scale: Scale) -> Any:
    """One layer's entry of a list: feed-forward widths and bounds shrink, kinds stay as they are."""
    if LIMIT_FIELD.search(name):
        return _limit(value)
    return scale.feed_forward_of(name, value) if FEED_FORWARD_FIELD.search(name) and type(value) is int else value


def cover(keys: list[tuple[Any, ...]], least: int) -> list[int]:
    """Positions, in order, that together show every value of every column; at least ``least`` of them."""
    missing = {(c, v) for key in keys for c, v in enumerate(key)}
    kept: list[int] = []
    while missing:
        best = max(range(len(keys)), key=lambda i: (sum((c, v) in missing for c, v in enumerate(keys[i])), -i))
        kept.append(best)
        missing -= set(enumerate(keys[best]))
    kept += [i for i in range(len(keys)) if i not in kept][: max(0, least - len(kept))]
    return sorted(kept)


def shrink_attention(old: dict[str, Any], new: dict[str, Any], scale: Scale) -> None:
    """Heads, groups and head sizes: query over key/value heads stays a ratio above one; compressed ranks small."""
    hidden = next((old[k] for k in WIDTH_FIELDS if isinstance(old.get(k), int)), None)
    width = scale.width_of(hidden) if hidden is not None and hidden > 4 else scale.width
    size = head_size(width, planar=_is_image(old))
    latent = isinstance(old.get("qk_rope_head_dim"), int)
    if latent:
        rotary, plain, value_size = scale.latent_heads
        new["qk_rope_head_dim"], new["qk_nope_head_dim"], new["v_head_dim"] = rotary, plain, value_size
        old_sizes = {
            old["qk_rope_head_dim"]: rotary,
            old.get("qk_nope_head_dim"): plain,
            old.get("v_head_dim"): value_size,
        }
        old_sizes[old["qk_rope_head_dim"] + (old.get("qk_nope_head_dim") or 0)] = rotary + plain
    for name, value in old.items():
        if not isinstance(value, int) or isinstance(value, bool) or name in new:
            continue
        if HEAD_FIELD.match(name) and not re.search(r"mamba|linear|index|ssm", name):
            new[name] = min(value, max(1, width // size))
        elif KV_FIELD.match(name):
            new[name] = width // size if value >= _queries(old) else min(value, max(1, width // size // 2))
        elif re.search(r"index(er)?_(n_heads|num_heads)|index_heads", name):
            new[name] = min(value, 3)
        elif re.search(r"index(er)?_head_dim", name):
            new[name] = 8
        elif HEAD_DIM_FIELD.match(name) and not re.search(r"mamba|linear", name) and value > 4:
            ratio = _ratio(value * _queries(old), hidden)
            new[name] = old_sizes.get(value, size) if latent else ratio * size
        elif name == "qk_head_dim":
            new[name] = sum(scale.latent_heads[:2])


def _queries(old: dict[str, Any]) -> int:
    return next((old[k] for k in old if HEAD_FIELD.match(k) and type(old[k]) is int), 1)


def _ratio(size: int, width: int | None) -> int:
    """How often ``width`` goes into ``size``: 2, 3 or 4 where exactly so, else 1."""
    return size // width if width and size % width == 0 and 1 < size // width <= 4 else 1


def head_size(width: int, planar: bool) -> int:
    """A head size that divides ``width`` and is even; a multiple of four where two image axes share rotary planes."""
    if planar:
        return 8 if width % 8 == 0 else 4
    return 6 if width % 6 == 0 and width >= 24 else (8 if width % 8 == 0 and width >= 32 else 4)


def shrink_experts(old: dict[str, Any], new: dict[str, Any], scale: Scale) -> None:
    """A few experts, two chosen; six in three groups, two groups chosen, where experts are grouped."""
    groups = next((old[k] for k in ("n_group", "num_expert_group") if isinstance(old.get(k), int)), 1)
    grouped = groups > 1
    for name, value in old.items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        if EXPERT_FIELD.match(name) and value > 1:
            new[name] = min(value, 6 if grouped else scale.experts)
        elif TOP_K_FIELD.match(name):
            new[name] = min(value, 2)
        elif name in ("n_group", "num_expert_group"):
            new[name] = min(value, 3)
        elif name == "topk_group":
            new[name] = min(value, 2)
        elif re.search(r"(shared_experts|num_shared_expert)$", name):
            new[name] = min(value, 2)
        elif name == "zero_expert_num":
            new[name] = min(value, 2)


def shrink_state_space(old: dict[str, Any], new: dict[str, Any], scale: Scale) -> None:
    """State-space and linear-attention layers: heads times head size is the inner width, where it was."""
    hidden = next((old[k] for k in WIDTH_FIELDS if isinstance(old.get(k), int)), scale.width)
    inner = 2 * scale.width_of(hidden) if hidden > 4 else 2 * scale.width
    size = 6 if inner % 6 == 0 else 8
    for name, value in old.items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        if name in ("mamba_d_head", "mamba_head_dim", "mamba_headdim"):
            new[name] = size
        elif name in ("mamba_n_heads", "mamba_num_heads"):
            new[name] = inner // size
        elif name == "mamba_d_ssm":
            new[name] = inner
        elif name in ("linear_num_key_heads", "linear_num_heads"):
            new[name] = 2
        elif name == "linear_num_value_heads":
            new[name] = 2 if value == old.get("linear_num_key_heads") else 4
        elif name in ("linear_key_head_dim", "linear_head_dim"):
            new[name] = 6
        elif name == "linear_value_head_dim":
            new[name] = 6 if value == old.get("linear_key_head_dim") else 7
        elif re.search(r"groups$", name) and value > 1:
            new[name] = 2
    expand, feed_forward = old.get("expand"), old.get("intermediate_size")
    if type(expand) is int and expand * hidden == feed_forward:
        new["intermediate_size"] = inner
    if "head_dim" in old and "expand" in old and "num_heads" in old:
        new["head_dim"], new["num_heads"] = size, inner // size


def shrink_stages(old: dict[str, Any], new: dict[str, Any], scale: Scale) -> None:
    """Pyramids: one list entry for each stage. Depths go to one, widths and heads keep their ratios."""
    for name, value in old.items():
        if not isinstance(value, (list, tuple)) or not value or not all(type(v) is int for v in value) or name in new:
            continue
        if re.search(r"^(depths|layer_depths|num_blocks|layers|\w+_depths|depth)$", name):
            new[name] = type(value)(min(v, 1) for v in value)
        elif re.search(
            r"(hidden_sizes|embed_dims?|dims|neck_hidden_sizes|conv_dim|channels|stem_channels|hidden_dims|"
            r"tdnn_dim|out_features_dim|hidden_size|embed_dim|encoder_hidden_sizes)$",
            name,
        ):
            unit = max(1, min(value) // 8)
            new[name] = type(value)(max(4, v // unit // 4 * 4) if v > 8 else v for v in value)
        elif re.search(r"(num_attention_heads|num_heads|heads)$", name):
            new[name] = type(value)(min(v, 2 * v // max(1, min(value))) for v in value)


def shrink_outputs(old: dict[str, Any], new: dict[str, Any]) -> None:
    """A backbone that names its layers as stages: as many layers as it gives out, and all of them given out."""
    depth, names = old.get("num_hidden_layers"), old.get("stage_names")
    if type(depth) is not int or not isinstance(names, (list, tuple)) or len(names) != depth + 1:
        return
    count = max(new["num_hidden_layers"], len(old.get("_out_indices") or ()))
    given = max(1, len(old.get("_out_indices") or ()))
    new["num_hidden_layers"] = count
    new["stage_names"] = list(names[: count + 1])
    new["_out_indices"] = list(range(count + 1 - given, count + 1))
    new["_out_features"] = [names[i] for i in new["_out_indices"]]


def shrink_image(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Images of three by three patches, four pixels wide; pyramids keep their first stride and get eight of them."""
    staged = any(isinstance(old.get(k), (list, tuple)) for k in ("depths", "hidden_sizes", "embed_dims"))
    patch = old.get("patch_size")
    if type(patch) is int and ("image_size" in old or _is_image(old)) and not staged:
        new["patch_size"] = min(patch, 4)
    if "image_size" in old and staged:
        new["image_size"] = 64 if type(old["image_size"]) is int else type(old["image_size"])((64, 64))
    elif type(old.get("image_size")) is int:
        cell = patch if type(patch) is int else 4
        new["image_size"] = 3 * min(cell, 4)
    elif isinstance(old.get("image_size"), (list, tuple)) and type(patch) is int:
        new["image_size"] = type(old["image_size"])(3 * min(patch, 4) for _ in old["image_size"])
    if type(old.get("num_mel_bins")) is int:
        new["num_mel_bins"] = min(old["num_mel_bins"], 16)


def shrink_field(name: str, value: Any, old: dict[str, Any], scale: Scale) -> Any:
    """The small value of one field that stands alone, or None to leave it."""
    if TOKEN_FIELD.search(name):
        if isinstance(value, (list, tuple)):
            return type(value)(scale.token_of(v) for v in value if isinstance(v, int))
        return scale.token_of(value) if type(value) is int else None
    if LIMIT_FIELD.search(name):
        return _limit(value)
    if type(value) is not int:
        return None
    if DENSE_FIRST_FIELD.match(name):
        return min(value, scale.layers - 1)
    for rule, small in field_rules(name, scale):
        if rule and value > (2 if PERIOD_FIELD.search(name) else 4):
            return min(value, small(value))
    if value > 16 and re.search(r"(size|dim|width|channels?|hidden|filters|units|features|length)(_\w+)?$", name):
        return min(value, scale.width_of(value))
    return None


def _limit(value: Any) -> Any:
    """A bound that small weights reach: one that no value reaches is no part of the function."""
    return min(value, REACHED) if type(value) in (int, float) else value


def shrink_rotary(old: dict[str, Any], new: dict[str, Any], scale: Scale) -> None:
    """Rotary embeddings keep an even number of dimensions; partial ones stay partial (two thirds of a head)."""
    size = next((new[k] for k in ("qk_rope_head_dim", "head_dim", "attention_head_size") if k in new), None)
    if size is None:
        hidden = next((new[k] for k in WIDTH_FIELDS if k in new), scale.width)
        heads = next((new[k] for k in new if HEAD_FIELD.match(k) and type(new[k]) is int), 1)
        size = hidden // heads
    share = _rotary_share(old, new)
    for name in ROTARY_FACTORS:
        if isinstance(old.get(name), float):
            new[name] = _partial(old[name], size, share)
    if type(old.get("rotary_dim")) is int:
        new["rotary_dim"] = 2 * max(1, size // 3)
    for name in ("rope_parameters", "rope_scaling"):
        if isinstance(old.get(name), dict):
            new[name] = _rotary_dict(old[name], size, share)


def _rotary_share(old: dict[str, Any], new: dict[str, Any]) -> tuple[float, float]:
    """The part of a head that has an entry of its own as the part that turns: as it was and as it is; zeros without one."""
    if not all(type(held.get(k)) is int for held in (old, new) for k in ("qk_rope_head_dim", "head_dim")):
        return 0.0, 0.0
    before, now = ((held["qk_rope_head_dim"], max(1, held["head_dim"])) for held in (old, new))
    return before[0] / before[1], (now[0] + 0.01) / now[1]


def _rotary_dict(rope: dict[str, Any], size: int, share: tuple[float, float]) -> dict[str, Any]:
    """Per-plane lists cut to the planes there are; sections of planes made to add up."""
    if any(isinstance(v, dict) for v in rope.values()):
        return {k: _rotary_dict(v, size, share) if isinstance(v, dict) else v for k, v in rope.items()}
    small = dict(rope)
    for name in ROTARY_FACTORS:
        if isinstance(rope.get(name), float):
            small[name] = _partial(rope[name], size, share)
    planes = int(size * small.get("partial_rotary_factor", 1.0)) // 2
    for name, value in rope.items():
        if isinstance(value, (list, tuple)) and name.endswith("_factor"):
            small[name] = type(value)(value[:planes])
        elif isinstance(value, (list, tuple)) and name.endswith("section"):
            shares = [planes // len(value) + (i < planes % len(value)) for i in range(len(value))]
            small[name] = type(value)(shares)
    return small


def _partial(factor: float, size: int, share: tuple[float, float]) -> float:
    if factor >= 1.0:
        return factor
    return share[1] if factor == share[0] else (2 * max(1, size // 3) + 0.01) / size


def _is_config(value: Any) -> bool:
    return hasattr(value, "to_dict") and hasattr(value, "model_type")


def _is_image(old: dict[str, Any]) -> bool:
    fields = ("patch_size", "image_size", "num_channels", "spatial_merge_size")
    return any(k in old for k in fields) and "vocab_size" not in old


def _has_text(node: Any) -> bool:
    return isinstance(vars(node).get("vocab_size"), int)


def _hidden_size(node: Any) -> Any:
    return next((vars(node)[k] for k in WIDTH_FIELDS if isinstance(vars(node).get(k), int)), None)


def _get(node: Any, name: str) -> Any:
    return vars(node).get(name)


def _set(node: Any, name: str, value: Any) -> None:
    try:
        setattr(node, name, value)
    except (AttributeError, TypeError, ValueError):
        vars(node)[name] = value
