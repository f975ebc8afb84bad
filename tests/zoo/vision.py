"""Vision models from transformers, tiny."""

from __future__ import annotations

import transformers

from tests.zoo.registry import Call, add, floats


def vit() -> Call:
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=13, image_size=8, patch_size=4,
        num_channels=3, num_labels=5, layer_norm_eps=1e-5)
    return Call(transformers.ViTForImageClassification(config).eval(), (floats(7, 3, 8, 8),), {}, "logits")


def resnet(layer_type: str) -> Call:
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type=layer_type, num_labels=5)
    return Call(transformers.ResNetForImageClassification(config).eval(), (floats(7, 3, 32, 32),), {}, "logits")


add("vit", 0, vit, slow=True)
add("resnet-basic", 0, lambda: resnet("basic"), slow=True)
add("resnet-bottleneck", 0, lambda: resnet("bottleneck"), slow=True)
