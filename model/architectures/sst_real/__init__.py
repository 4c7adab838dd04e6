"""SST-Real: restoration of real photographs in one step, x4 (official repository of SST, arXiv 2603.06738)."""

from flashrib.model.architectures.architecture import Architecture, lazy
from flashrib.model.architectures.sst_real.config import PRESETS, SSTRealConfig, preset

ARCHITECTURE = Architecture(
    family="sst-real",
    title="an SST-Real",
    config=SSTRealConfig,
    presets=PRESETS,
    preset=preset,
    scales=(4,),
    matches=lambda keys: "model.map_noise.mlp.0.weight" in keys,
    recognise=lazy("flashrib.model.architectures.sst_real.recognise", "recognise"),
    build=lazy("flashrib.model.architectures.sst_real.network", "SSTReal"),
    fold=lazy("flashrib.model.architectures.sst_real.fold", "fold"),
    gpu=lazy("flashrib.model.architectures.sst_real.gpu", "gpu"),
    file_name=lazy("flashrib.model.architectures.sst_real.recognise", "file_name"),
    kept={"proj*": "first convolutions", "up*": "heads"},
)
