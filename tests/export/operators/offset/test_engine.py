"""TensorRT-RTX builds a Fibottention ViT, on the CPU. It is given the dense body: it has no plugins, and fuses no such mask."""

from pathlib import Path

from flashrib.export.engine.engine_from_onnx import engine_from_onnx
from flashrib.export.engine.options import EngineOptions
from flashrib.export.engine.source import read_source
from flashrib.export.options import ExportOptions
from flashrib.export.to_file import export_file
from flashrib.model.checkpoint import load_model
from tests.export.engine.sources import needs_rtx
from tests.test_digits import TRAINED


@needs_rtx
def test_build(tmp_path: Path) -> None:
    path = tmp_path / "digits.onnx"
    export_file(load_model(TRAINED), path, ExportOptions(precision="fp16"))
    engine = engine_from_onnx(read_source(path), EngineOptions("rtx", ("sm86",), usual=(16, 16)))
    assert engine.plan[:4] == b"vtrt"
    assert engine.manifest.model.task == "classify"
    assert engine.manifest.model.architecture_config["mask_mode"] == "neg_inf"
    assert engine.manifest.shapes == ((16, 16), (16, 16), (16, 16))
