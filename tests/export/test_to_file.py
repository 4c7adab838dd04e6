"""From a network to a checked file, in every precision, size and batch."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from flashrib.export import check, to_file
from flashrib.export.operators.bodies import with_body
from flashrib.export.operators.window.row import WINDOW_ATTENTION
from flashrib.export.options import ExportOptions
from flashrib.export.to_file import export_file as export
from flashrib.export.to_onnx import onnx_from_network
from flashrib.model import SSTConfig
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.errors import FlashribError, ModelError, UsageError
from tests.export.graphs import run
from tests.model.networks import SMALL_ESC, small_network, two_blocks
from tests.official import seeded

SMALL = SSTConfig("sst-custom", 12, ((4, 4), (8, 8)), heads=(3, 2), ranks=(3, 5), blocks=1, ffn_dim=18, rib_hidden=8)
CONFIGS = {"sst": SMALL, "esc": SMALL_ESC}


@pytest.mark.parametrize(
    ("name", "options", "methods"),
    [
        ("sst", ExportOptions(), ["onnxruntime"]),
        ("sst", ExportOptions("fp16", attention="standard"), ["onnxruntime", "emulation"]),
        ("sst", ExportOptions("fp16", "fp16", tile=(8, 16), batch=3), ["onnxruntime", "emulation"]),
        ("sst", ExportOptions("bf16", batch=2), ["emulation"]),
        ("esc", ExportOptions("bf16", "fp16", tile=(15, 13)), ["emulation"]),
        ("esc", ExportOptions("fp16", batch=2, clamp=True), ["onnxruntime", "emulation"]),
        ("esc", ExportOptions(attention="attention", tile=(24, 48), batch=2, clamp=True), ["onnxruntime"]),
    ],
    ids=lambda value: (
        "-".join(str(v) for v in dataclasses.astuple(value)) if isinstance(value, ExportOptions) else None
    ),
)
def test_options(name: str, options: ExportOptions, methods: list[str], tmp_path: Path) -> None:
    network = small_network(CONFIGS[name])
    report = export(network, tmp_path / "m.onnx", options)
    assert [c.method for c in report.checks] == methods
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    model = onnx.load(tmp_path / "m.onnx")
    dims = [d.dim_value or d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [options.batch, 3, *(options.tile or ("height", "width"))]
    about = describe_onnx(tmp_path / "m.onnx")
    body = options.attention or ("attention" if options.precision == "bf16" else "onnxruntime")
    assert (about.precision, about.io, about.batch) == (options.precision, options.io, options.batch)
    assert about.attention == body
    assert about.clamp == options.clamp
    assert about.opset == options.chosen_opset == next(o.version for o in model.opset_import if o.domain == "")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_body_holds_for_batches(name: str) -> None:
    network = small_network(CONFIGS[name])
    model = onnx_from_network(network, options=ExportOptions(batch=3))
    pictures = torch.rand(3, 3, 9, 21, generator=seeded(0))
    with torch.no_grad():
        expected = network.upscale(pictures).numpy()
    for body in WINDOW_ATTENTION.bodies:
        output = run(with_body(model, body), input=pictures.numpy())
        assert np.abs(output - expected).max() <= 1e-4, body


def optimized_operators(path: Path, folder: Path) -> list[str]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


@pytest.mark.parametrize("tile", [(16, 24), (16, 23)], ids=["whole windows", "windows to be padded"])
def test_padding_folds_away(tile: tuple[int, int], tmp_path: Path) -> None:
    """Nothing is left beside the attention of each of the two layers but one Gather into windows and one back."""
    whole = dataclasses.replace(SMALL, dim=24, heads=(3, 3), ranks=(8, 8))  # nothing to complete to multiples of 8
    export(small_network(whole), tmp_path / "m.onnx", ExportOptions(tile=tile))
    operators = optimized_operators(tmp_path / "m.onnx", tmp_path)
    assert operators.count("Gather") == 2 * operators.count("MultiHeadAttention") == 4
    assert not {"Pad", "Shape", "Mod", "Range", "ReduceProd"} & set(operators)


def test_esc_tile_of_whole_windows_has_no_gather() -> None:
    model = onnx_from_network(small_network(SMALL_ESC), options=ExportOptions(tile=(24, 24)))
    assert not [node for node in model.graph.node if node.op_type in ("Gather", "Slice")]


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_opsets(opset: int, tmp_path: Path) -> None:
    export(small_network(SMALL), tmp_path / "m.onnx", ExportOptions(opset=opset))
    assert describe_onnx(tmp_path / "m.onnx").opset == opset


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "precision 'int4' is not one of fp32, fp16, bf16"),
        ({"io": "bf16"}, "io 'bf16' is not one of fp32, fp16"),
        ({"opset": 17}, "opset 17 is not one of 18, 20, 23"),
        ({"batch": 0}, "batch is 0"),
        ({"precision": "bf16", "opset": 20}, "opset 20 has no convolution in bf16: use --opset 23"),
        ({"attention": "attention", "opset": 18}, "opset 18 is too low for --attention attention: use --opset 23"),
        ({"attention": "flash"}, "attention 'flash' is not one of onnxruntime, standard, .*none"),
        ({"tile": (3, 64)}, "tile 3x64: sst-custom needs at least 5"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        export(small_network(SMALL), tmp_path / "m.onnx", ExportOptions(**options))
    assert not list(tmp_path.iterdir())


def test_overflow_is_a_failure_and_leaves_no_file(tmp_path: Path) -> None:
    network = small_network(SMALL)
    with torch.no_grad():  # too much for fp16 in between, though every weight and the output are small
        network.proj.weight.mul_(3e4).add_(3e4)
    with pytest.raises(ModelError, match=r"not finite \(.*\): fp16 overflows in this network"):
        export(network, tmp_path / "m.onnx", ExportOptions("fp16"))
    assert not list(tmp_path.iterdir())


def test_an_error_beyond_the_bound_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = check._reference
    monkeypatch.setattr(check, "_reference", lambda *arguments: reference(*arguments) + np.float32(2e-4))
    with pytest.raises(
        ModelError, match=r"max\. abs\. error 0\.0002\d* \(onnxruntime\), but the bound of fp32 is 0\.0001"
    ):
        export(small_network(SMALL), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = to_file.save_onnx
    monkeypatch.setattr(to_file, "save_onnx", lambda *a, **k: save(*a, **k, external_above=1000))
    report = export(small_network(SMALL), tmp_path / "m.onnx", ExportOptions("fp16"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert len(report.checks) == 2


def test_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(small_network(SMALL), tmp_path / name, ExportOptions("fp16"), "ab" * 32)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_unwritable(tmp_path: Path) -> None:
    with pytest.raises(FlashribError, match="cannot be written"):
        export(small_network(SMALL), tmp_path / "missing" / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale", "precision"), [("sst-light", 3, "fp16"), ("sst-plus", 4, "fp32"), ("esc-rib", 2, "fp16")]
)
def test_presets(name: str, scale: int, precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    export(two_blocks(name, scale), tmp_path / "m.onnx", ExportOptions(precision))
    assert describe_onnx(tmp_path / "m.onnx").architecture == name
