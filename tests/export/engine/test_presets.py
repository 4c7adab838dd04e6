"""Engines of real networks, of every size that BENCHMARKS.md has a row for, built by TensorRT-RTX on the CPU.

The bundled network whole, of the others two of the blocks, which are all alike.
"""

from pathlib import Path

import pytest
import torch

from benchmarks.engines import NETWORKS, PRECISIONS
from flashrib.export.engine.engine_from_onnx import engine_from_onnx
from flashrib.export.engine.options import EngineOptions
from flashrib.export.engine.source import read_source
from flashrib.export.options import ExportOptions
from flashrib.export.save import save_onnx
from flashrib.export.to_onnx import export_graph
from flashrib.model.checkpoint import load_model
from flashrib.runtime.artifacts.bundled import bundled_weights
from tests.export.engine.sources import needs_rtx
from tests.export.tracing import trace_once
from tests.model.networks import two_blocks


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale", "side"), NETWORKS)
def test_fused(name: str, scale: int, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both precisions in one test, because torch's trace, most of an export, is the same for both."""
    torch.manual_seed(0)
    network = load_model(bundled_weights()) if name == "sst-light" else two_blocks(name, scale)
    traced = trace_once(monkeypatch)
    for precision in PRECISIONS:
        path = tmp_path / f"{precision}.onnx"
        save_onnx(export_graph(network, ExportOptions(precision=precision, attention="attention"), "")[0], path)
        source = read_source(path)
        assert (source.metadata.architecture, source.metadata.scale) == (name, scale)
        engine = engine_from_onnx(source, EngineOptions("rtx", usual=(side, side)))  # refuses what is not fused
        feature_map = side * side * source.dim * 2
        assert 10 * feature_map < engine.manifest.scratch_bytes < 40 * feature_map
        assert engine.manifest.precision == precision
    assert len(traced) == 1
