"""Engines of SST-Real, built by TensorRT-RTX on the CPU: with noise as a second input, of one size and of a range, and with it inside."""

import dataclasses
import functools
from pathlib import Path

import pytest
from onnx import ModelProto

from flashrib.export.engine.engine_from_onnx import engine_from_onnx
from flashrib.export.engine.options import EngineOptions
from flashrib.export.engine.source import read_source
from flashrib.export.options import ExportOptions
from flashrib.export.save import save_onnx
from flashrib.export.to_onnx import export_graph
from flashrib.model.architectures.registry import network_from_config
from tests.export.engine.sources import needs_rtx
from tests.model.architectures.sst_real.test_recognise import SMALL

# Heads that TensorRT fuses.
CONFIG = dataclasses.replace(SMALL, dim=32, windows=((8, 8), (16, 16)), heads=(2, 2), ranks=(16, 16), ffn_dim=32)
ONE = EngineOptions("rtx", ("sm86",), usual=(48, 64))
RANGE = dataclasses.replace(ONE, smallest=(32, 32), largest=(64, 64))


@functools.cache
def exported(noise: str | int) -> ModelProto:
    network = network_from_config(CONFIG).eval()
    return export_graph(network, ExportOptions(precision="fp16", attention="attention", noise=noise))[0]


@needs_rtx
@pytest.mark.parametrize(("noise", "options"), [("input", ONE), ("input", RANGE), (3, RANGE), ("none", ONE)])
def test_build(noise: str | int, options: EngineOptions, tmp_path: Path) -> None:
    save_onnx(exported(noise), tmp_path / "real.onnx")
    source = read_source(tmp_path / "real.onnx")
    assert source.shapes((33, 64)).get("noise") == ((1, 3, 192, 256) if noise == "input" else None)
    manifest = engine_from_onnx(source, options).manifest
    assert manifest.info.noise == (1.0 if noise == "input" else 0.0)
    assert manifest.info.noise_seed == (3 if noise == 3 else None)
