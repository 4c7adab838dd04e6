"""Fibottention (arXiv 2406.19391): a ViT whose heads see the class token and the tokens at Fibonacci offsets only."""

from flashrib.model.architectures.architecture import Architecture, lazy
from flashrib.model.architectures.fibottention_vit.config import (
    FAMILY,
    PRESETS,
    FibottentionConfig,
    config_of_facts,
    preset,
)

ARCHITECTURE = Architecture(
    family=FAMILY,
    title="a Fibottention ViT",
    config=FibottentionConfig,
    presets=PRESETS,
    preset=preset,
    matches=lambda keys: "cls_token" in keys and "blocks.0.attn.qkv.weight" in keys,
    recognise=lazy("flashrib.model.architectures.fibottention_vit.recognise", "recognise"),
    build=lazy("flashrib.model.architectures.fibottention_vit.network", "FibottentionViT"),
    fold=lazy("flashrib.model.architectures.fibottention_vit.fold", "fold"),
    pictures=lazy("flashrib.model.architectures.fibottention_vit.draw", "pictures"),
    config_of_facts=config_of_facts,
    gpu=lazy("flashrib.model.architectures.fibottention_vit.gpu", "gpu"),
)
