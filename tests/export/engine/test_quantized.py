"""Quantized files in the builder."""

import dataclasses
from pathlib import Path

import pytest

from flashrib.calibration.options import CalibrationOptions
from flashrib.calibration.quantize import calibrate
from flashrib.export.engine import engine_from_onnx as engine_from_onnx_module
from flashrib.export.engine.engine_from_onnx import engine_from_onnx
from flashrib.export.engine.log import EngineLayer
from flashrib.export.engine.options import EngineOptions
from flashrib.export.engine.quantized import check_quantized, quantized_nodes
from flashrib.export.engine.source import read_source
from flashrib.runtime.errors import ModelError, UsageError
from tests.calibration.cases import write_model, write_pictures
from tests.export.engine.sources import needs_rtx, write_small

LAYERS = [
    EngineLayer("gemm_1", ((2, 3),), ("node_a", "dequantize_a"), ("FP8", "FP8")),
    EngineLayer("gemm_2", ((2, 3),), ("node_b",), ("Half", "Half")),
    EngineLayer("conv", ((2, 3),), ("node_c",), ("Row major linear FP8 format",)),
]


def quantized(folder: Path, mode: str, precision: str = "fp16") -> Path:
    """The small network of the engine tests, calibrated with everything in 8 bits."""
    write_small(folder / "small.onnx", precision)
    options = CalibrationOptions(mode, budget=3.0, tiles=4, held_out=2, side=40, threads=1)
    calibrate(folder / "small.onnx", write_pictures(folder / "pictures", 10, 90), folder / "small_q.onnx", options)
    return folder / "small_q.onnx"


def test_all_in_8_bits() -> None:
    check_quantized("m.onnx", "fp8", ["node_a", "node_c"], LAYERS)


def test_a_layer_that_fell_back() -> None:
    with pytest.raises(ModelError, match=r"m\.onnx: TensorRT computes 1 of 2 quantized layers in 16 bit, node_b first"):
        check_quantized("m.onnx", "fp8", ["node_a", "node_b"], LAYERS)


def test_fp8_is_not_int8() -> None:
    with pytest.raises(ModelError, match="computes 1 of 1"):
        check_quantized("m.onnx", "int8", ["node_a"], LAYERS)


@needs_rtx
def test_fp8_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every quantized product is in a layer of the engine that reads FP8; of the same network unquantized, none is."""
    source = read_source(quantized(tmp_path, "fp8"))
    nodes = quantized_nodes(source.model)
    assert len(nodes) == 11
    engine = engine_from_onnx(source, EngineOptions("rtx", ("sm89",), usual=(64, 64)))
    assert engine.manifest.precision == "fp8"
    assert engine.manifest.model.calibration is not None
    plain = read_source(tmp_path / "small.onnx")
    wrong = dataclasses.replace(plain, metadata=source.metadata)
    monkeypatch.setattr(engine_from_onnx_module, "quantized_nodes", lambda model: nodes)
    with pytest.raises(ModelError, match=r"TensorRT computes 11 of 11 quantized layers in 16 bit"):
        engine_from_onnx(wrong, EngineOptions("rtx", ("sm89",), usual=(64, 64)))


def test_int8_is_not_for_rtx(tmp_path: Path) -> None:
    source = read_source(quantized(tmp_path, "int8"))
    with pytest.raises(UsageError, match="INT8, which TensorRT-RTX takes for weights alone: calibrate with --mode fp8"):
        engine_from_onnx(source, EngineOptions("rtx", ("sm89",)))


def test_the_rest_in_fp32_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "m.onnx")
    options = CalibrationOptions("fp8", budget=3.0, tiles=4, held_out=2, side=24, threads=1)
    calibrate(tmp_path / "m.onnx", write_pictures(tmp_path / "pictures"), tmp_path / "q.onnx", options)
    with pytest.raises(
        ModelError, match="what is not quantized computes in fp32, but TensorRT fuses attention in fp16"
    ):
        read_source(tmp_path / "q.onnx")
