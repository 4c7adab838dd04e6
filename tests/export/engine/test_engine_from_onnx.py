"""Real builds of a small network by TensorRT-RTX, on the CPU."""

import dataclasses
import hashlib
import importlib
import sys
import types
from pathlib import Path

import pytest
from onnx import ModelProto

from flashrib.export.engine import engine_from_onnx as module
from flashrib.export.engine.engine_from_onnx import engine_from_onnx
from flashrib.export.engine.options import EngineOptions
from flashrib.export.engine.source import read_source
from flashrib.export.operators.table import OPERATORS
from flashrib.export.save import save_onnx
from flashrib.runtime.errors import MissingPackageError, ModelError, UsageError
from tests.export.engine.sources import CONFIG, NARROW, TILE, needs_rtx, small_model, small_source

OPTIONS = EngineOptions("rtx", ("sm86",), usual=TILE)


@needs_rtx
@pytest.mark.parametrize("precision", ["fp16", pytest.param("bf16", marks=pytest.mark.slow)])
def test_build(precision: str, tmp_path: Path) -> None:
    reports: list[tuple[float, str]] = []
    source = small_source(tmp_path, precision)
    engine = engine_from_onnx(source, OPTIONS, progress=lambda fraction, phase: reports.append((fraction, phase)))
    manifest = engine.manifest
    assert engine.plan[:4] == b"vtrt"
    assert manifest.engine_sha256 == hashlib.sha256(engine.plan).hexdigest()
    assert manifest.onnx_sha256 == hashlib.sha256(source.path.read_bytes()).hexdigest()
    assert (manifest.flavour, manifest.targets, manifest.shapes) == ("rtx", ("sm86",), (TILE, TILE, TILE))
    assert (manifest.precision, manifest.batch, manifest.io) == (precision, 1, "float32")
    assert manifest.layers > 10
    assert 0 < manifest.scratch_bytes < 32 << 20
    assert manifest.model == source.metadata
    fractions = [fraction for fraction, _ in reports]
    assert fractions == sorted(fractions)
    assert 0.9 < fractions[-1] <= 1


@needs_rtx
def test_build_for_a_range_of_sizes(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, smallest=(32, 32), usual=(64, 64), largest=(96, 128))
    manifest = engine_from_onnx(small_source(tmp_path), options).manifest
    assert manifest.shapes == ((32, 32), (64, 64), (96, 128))


@needs_rtx
def test_weights_in_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same engine as from one file, wherever the process stands."""
    whole = engine_from_onnx(small_source(tmp_path), OPTIONS)
    save_onnx(small_model(), tmp_path / "far.onnx", external_above=0)
    monkeypatch.chdir("/")
    far = engine_from_onnx(read_source(tmp_path / "far.onnx"), OPTIONS)
    assert (tmp_path / "far.onnx.data").stat().st_size > 50_000
    assert far.manifest.scratch_bytes == whole.manifest.scratch_bytes
    assert len(far.plan) == len(whole.plan)


@needs_rtx
def test_narrow_v_is_not_fused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network with v left narrow: both layers are named, the one whose scores are small as well."""
    row = OPERATORS["WindowAttention"]
    monkeypatch.setitem(
        OPERATORS, "WindowAttention", dataclasses.replace(row, bodies={**row.bodies, "attention": NARROW})
    )
    with pytest.raises(
        ModelError, match=r"not fused in 2 of 2 layers: \S+ \(window 8x8\), \S+ \(window 32x32\).* N x N"
    ):
        engine_from_onnx(small_source(tmp_path), OPTIONS)


@needs_rtx
@pytest.mark.parametrize(("version", "operator"), [("10.13.3.9", "Softmax"), ("10.14.1.48", "Attention")])
def test_what_older_versions_are_given_is_fused(
    version: str, operator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT before 10.14 has no Attention: it gets a pattern, which TensorRT-RTX's builder, in its place here, fuses as well."""
    bindings = vars(importlib.import_module("tensorrt_rtx_bindings"))
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(**bindings | {"__version__": version}))
    given: list[ModelProto] = []
    parsed = module._parsed
    monkeypatch.setattr(module, "_parsed", lambda *a: (given.append(a[0].model), parsed(*a))[1])
    manifest = engine_from_onnx(small_source(tmp_path), EngineOptions("tensorrt", usual=TILE)).manifest
    assert (manifest.flavour, manifest.version) == ("tensorrt", version)
    operators = {node.op_type for function in given[0].functions for node in function.node}
    assert operators & {"Softmax", "Attention"} == {operator}


@needs_rtx
def test_heads_that_no_kernel_takes(tmp_path: Path) -> None:
    wide = dataclasses.replace(CONFIG, dim=288, heads=(1, 1), windows=((8, 8),) * 2)
    save_onnx(small_model(config=wide), tmp_path / "wide.onnx")
    with pytest.raises(ModelError, match=r"wide\.onnx: TensorRT-RTX \S+ has no fused attention for this model: export"):
        engine_from_onnx(read_source(tmp_path / "wide.onnx"), OPTIONS)


@needs_rtx
def test_unreadable_model(tmp_path: Path) -> None:
    source = small_source(tmp_path, tile=TILE)
    source.model.graph.node[3].op_type = "NoSuchOperator"
    with pytest.raises(
        ModelError, match=r"small\.onnx: TensorRT-RTX \S+ cannot read this model: .*NoSuchOperator"
    ) as info:
        engine_from_onnx(source, OPTIONS)
    assert "\n" not in str(info.value)


@needs_rtx
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ("sm61",), "usual": TILE}, r"target 'sm61': TensorRT-RTX \S+ knows .*sm86"),
        ({"usual": (4, 64)}, "a side is below 17 pixels"),
    ],
)
def test_what_does_not_fit(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        engine_from_onnx(small_source(tmp_path), EngineOptions("rtx", **options))


@needs_rtx
def test_no_timing_cache(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--timing-cache: TensorRT-RTX measures nothing"):
        engine_from_onnx(small_source(tmp_path), OPTIONS, timing_cache=tmp_path / "timing")


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'flashrib\[tensorrt\]'"):
        engine_from_onnx(small_source(tmp_path), EngineOptions("tensorrt"))
