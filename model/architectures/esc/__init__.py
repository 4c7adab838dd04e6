"""ESC-RIB (arXiv 2603.06738)."""

from flashrib.model.architectures.architecture import Architecture, lazy
from flashrib.model.architectures.esc.config import PRESETS, ESCConfig, preset
from flashrib.model.config import SCALES

ARCHITECTURE = Architecture(
    family="esc-rib",
    title="an ESC-RIB",
    config=ESCConfig,
    presets=PRESETS,
    preset=preset,
    scales=SCALES,
    matches=lambda keys: "plk_filter" in keys,
    recognise=lazy("flashrib.model.architectures.esc.recognise", "recognise"),
    build=lazy("flashrib.model.architectures.esc.network", "ESC"),
    fold=lazy("flashrib.model.architectures.esc.fold", "fold"),
    gpu=lazy("flashrib.model.architectures.esc.gpu", "gpu"),
    file_name=lazy("flashrib.model.architectures.esc.recognise", "file_name"),
    header=lazy("flashrib.model.architectures.upscaler", "header"),
    kept={"first": "first convolution", "last": "last convolution", "upsampler*": "upsampler"},
)
