"""Engines of real networks, of every size that BENCHMARKS.md has a row for, built by TensorRT-RTX on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import ModelProto

from benchmarks.engines import NETWORKS, PRECISIONS
from flashrib.export import to_onnx as module
from flashrib.export.engine.engine_from_onnx import engine_from_onnx
from flashrib.export.engine.options import EngineOptions
from flashrib.export.engine.source import read_source
from flashrib.export.options import ExportOptions
from flashrib.export.save import save_onnx
from flashrib.model import build_model
from flashrib.model.checkpoint import load_model
from flashrib.runtime.artifacts.bundled import bundled_weights
from tests.export.engine.sources import needs_rtx


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale", "side"), NETWORKS)
def test_fused(name: str, scale: int, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both precisions in one test, because torch's trace, most of an export, is the same for both."""
    torch.manual_seed(0)
    network = load_model(bundled_weights()) if name == "sst-light" else build_model(name, scale)
    traced: list[ModelProto] = []
    trace = module.trace

    def trace_once(*arguments: Any, **options: Any) -> ModelProto:
        if not traced:
            traced.append(trace(*arguments, **options))
        return traced[0]

    monkeypatch.setattr(module, "trace", trace_once)
    for precision in PRECISIONS:
        path = tmp_path / f"{precision}.onnx"
        save_onnx(module.export_graph(network, ExportOptions(precision=precision, attention="attention"), "")[0], path)
        source = read_source(path)
        assert (source.metadata.architecture, source.metadata.scale) == (name, scale)
        engine = engine_from_onnx(source, EngineOptions("rtx", usual=(side, side)))  # refuses what is not fused
        feature_map = side * side * source.dim * 2
        assert 10 * feature_map < engine.manifest.scratch_bytes < 40 * feature_map
        assert engine.manifest.precision == precision
    assert len(traced) == 1
