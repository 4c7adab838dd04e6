"""CLEAR (arXiv 2412.16112): the transformer of FLUX with local attention, for one step of denoising."""

from flashrib.model.architectures.architecture import Architecture, lazy
from flashrib.model.architectures.clear_dit.config import PRESETS, ClearConfig, preset

ARCHITECTURE = Architecture(
    family="clear",
    title="a CLEAR",
    config=ClearConfig,
    presets=PRESETS,
    preset=preset,
    matches=lambda keys: "single_transformer_blocks.0.proj_mlp.weight" in keys,
    recognise=lazy("flashrib.model.architectures.clear_dit.recognise", "recognise"),
    build=lazy("flashrib.model.architectures.clear_dit.network", "ClearTransformer"),
    fold=lazy("flashrib.model.architectures.clear_dit.fold", "fold"),
    gpu=lazy("flashrib.model.architectures.clear_dit.gpu", "gpu"),
    kept={"x_embedder": "first product", "proj_out": "last product", "*norm*.linear": "modulation"},
)
