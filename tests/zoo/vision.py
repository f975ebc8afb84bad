"""Vision models from transformers, tiny."""

from __future__ import annotations

import transformers

from tests.zoo.registry import Call, add, floats


def vit() -> Call:
    config = transformers.ViTConfig(
        hidden_size=6,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=11,
        image_size=8,
        patch_size=4,
        num_channels=3,
        num_labels=5,
        layer_norm_eps=1e-5,
    )
    return Call(transformers.ViTForImageClassification(config).eval(), (floats(7, 3, 8, 8),), {}, "logits")


def resnet(layer_type: str, stem: int, hidden: list[int]) -> Call:
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=stem, hidden_sizes=hidden, depths=[1, 1], layer_type=layer_type, num_labels=5
    )
    network = transformers.ResNetForImageClassification(config).eval()
    return Call(network, (floats(11, 3, 20, 22),), {}, "logits")


def resnet_dim(stem: int, inner: list[int], wide: int) -> int:
    """Per batch norm channel: weight against gain; per relu channel: a scale (the stem's is the first block's stream);
    the two shifts that meet in the second block's sum."""
    channels = stem + stem + sum(inner) + wide + wide
    return channels + wide + stem + sum(inner) + wide


def vit_dim(d: int = 6, heads: int = 2, f: int = 11, layers: int = 2, classes: int = 5) -> int:
    """Block as GPT-2's; ends: the means of patch map, positions and class token; patch bias and class token against
    the positions; O(d - 1); the final norm's gain and shift and one direction for each row of the head."""
    dh = d // heads
    block = 2 * heads * dh**2 + 2 * d + 5 * d + 2 * d + f + (d + 1) + (f + 1)
    means = 3 * 4 * 4 + 1 + 5 + 1
    return layers * block + means + 2 * (d - 1) + (d - 1) * (d - 2) // 2 + 2 * d + classes


add("vit", vit_dim(), vit)
add("resnet-basic", resnet_dim(3, [3, 4], 4), lambda: resnet("basic", 3, [3, 4]))
add("resnet-bottleneck", resnet_dim(4, [1, 1, 2, 2], 8), lambda: resnet("bottleneck", 4, [4, 8]))
