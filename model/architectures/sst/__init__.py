"""SST (arXiv 2603.06738)."""

from flashrib.model.architectures.architecture import Architecture, lazy
from flashrib.model.architectures.sst.config import PRESETS, SSTConfig, preset
from flashrib.model.config import SCALES

ARCHITECTURE = Architecture(
    family="sst",
    title="an SST",
    config=SSTConfig,
    presets=PRESETS,
    preset=preset,
    scales=SCALES,
    matches=lambda keys: "body.0.0.attn.to_q" in keys,
    recognise=lazy("flashrib.model.architectures.sst.recognise", "recognise"),
    build=lazy("flashrib.model.architectures.sst.network", "SST"),
    fold=lazy("flashrib.model.architectures.sst.fold", "fold"),
    gpu=lazy("flashrib.model.architectures.sst.gpu", "gpu"),
    file_name=lazy("flashrib.model.architectures.sst.recognise", "file_name"),
    header=lazy("flashrib.model.architectures.upscaler", "header"),
    kept={"first": "first convolution", "last": "last convolution", "upsampler*": "upsampler"},
)
