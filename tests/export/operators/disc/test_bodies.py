"""CLEAR in ONNX Runtime: any size in one session, memory linear in the picture, the official tiny model; TensorRT-RTX takes the file."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from flashrib.export.operators.bodies import with_body
from flashrib.export.options import ExportOptions
from flashrib.export.to_file import export_file
from flashrib.export.to_onnx import onnx_from_network
from flashrib.model.attention.disc import disc_attention, pool_tokens
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import UsageError
from tests.model.architectures.clear_dit.cases import inputs, network, official, tiny
from tests.official import max_abs, seeded
from tests.places import ROOT


def run(model: onnx.ModelProto | str, tensors: list[Tensor]) -> list[NDArray[Any]]:
    given = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])
    feeds = {value.name: x.numpy() for value, x in zip(session.get_inputs(), tensors, strict=True)}
    results: list[NDArray[Any]] = session.run(None, feeds)
    return results


def operator_model(text: int, radius: int, scale: float, kind: int = onnx.TensorProto.FLOAT) -> onnx.ModelProto:
    """One node, all sizes open."""
    tensors = [onnx.helper.make_tensor_value_info(name, kind, ["B", f"{name}_n", "h", "D"]) for name in "qkv"]
    grid = onnx.helper.make_tensor_value_info("grid", onnx.TensorProto.INT64, [2])
    outputs = [
        onnx.helper.make_tensor_value_info("out", kind, ["B", "q_n", "h", "D"]),
        onnx.helper.make_tensor_value_info("lse", onnx.TensorProto.FLOAT, ["B", "h", "q_n"]),
    ]
    node = onnx.helper.make_node(
        "DiscAttention",
        ["q", "k", "v", "grid"],
        ["out", "lse"],
        domain="flashrib",
        text=text,
        radius=radius,
        scale=scale,
    )
    graph = onnx.helper.make_graph([node], "disc", [*tensors, grid], outputs)
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("flashrib", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("body", ["standard", "dense"])
@pytest.mark.parametrize(("text", "radius"), [(16, 4), (70, 9), (3, 1)])
def test_operator(body: str, text: int, radius: int) -> None:
    """Grids that are no multiples of the tiles, with pooled keys and without, in one session."""
    model = with_body(operator_model(text, radius, 0.3), body)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for grid, pooled in (((24, 40), 0), ((5, 3), 7), ((37, 13), 2)):
        n = text + grid[0] * grid[1]
        random = seeded(n)
        q, k, v = (torch.randn(2, size, 2, 8, generator=random) for size in (n, n + pooled, n + pooled))
        wanted, wanted_lse = disc_attention(q, k, v, grid, text, radius, 0.3, pooled)
        feeds = {"q": q.numpy(), "k": k.numpy(), "v": v.numpy(), "grid": np.array(grid)}
        out, lse = session.run(None, feeds)
        assert np.abs(out - wanted.numpy()).max() <= 1e-5
        assert np.abs(lse - wanted_lse.numpy()).max() <= 1e-5


@pytest.mark.shared
@pytest.mark.parametrize("variant", ["r4_down4_prop_ntk10", "r8"])
def test_official_model(variant: str) -> None:
    transformer, given, wanted = official(variant)
    model = onnx_from_network(transformer, options=ExportOptions())
    (output,) = run(model, given)
    assert max_abs(torch.from_numpy(output), wanted) <= 1e-4
    info = ModelInfo.from_properties({entry.key: entry.value for entry in model.metadata_props}, "model")
    assert info.task == "denoise"
    assert info.architecture_config["radius"] == transformer.config.radius
    assert info.architecture_config["down"] == transformer.config.down


def test_sizes_a_b_a() -> None:
    """Pooled and proportional, whose factor depends on the size."""
    config = tiny(3, 4, proportional=True)
    transformer = network(config)
    model = onnx_from_network(transformer)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    assert names == [tensor.name for tensor in config.inputs()]
    results = []
    for height, width in ((8, 12), (16, 4), (8, 12)):
        given = inputs(config, height, width)
        (output,) = session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})
        assert max_abs(torch.from_numpy(output), transformer(*given)) <= 2e-5
        results.append(output)
    assert np.array_equal(results[0], results[2])


def test_a_file_is_checked_and_odd_tiles_are_refused(tmp_path: Path) -> None:
    """bf16 at opset 23, where torch's exporter would make RMSNormalization of an RMS norm."""
    transformer = network(tiny(3, 4))
    report = export_file(transformer, tmp_path / "step.onnx", ExportOptions(precision="bf16"))
    assert [check.method for check in report.checks] == ["emulation"]
    with pytest.raises(UsageError, match="tile 6x8: clear-custom takes multiples of 4 only"):
        export_file(transformer, tmp_path / "odd.onnx", ExportOptions(tile=(6, 8)))


PEAK = """
import sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
def run(side):
    x = np.ones((1, 16 + side * side, 2, 8), np.float32)
    session.run(None, {"q": x, "k": x, "v": x, "grid": np.array([side, side])})
run(16)
for side in (64, 128, 256):
    before = peak()
    run(side)
    print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of the memory from /proc")
def test_memory_is_linear_in_the_picture(tmp_path: Path) -> None:
    """256 x 256 tokens: their scores alone would take 34 GB; maps of 2 heads of 8 take 4 MB each."""
    path = tmp_path / "disc.onnx"
    onnx.save(with_body(operator_model(16, 4, 0.3), "standard"), path)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True, cwd=ROOT)
    *_, largest = map(float, done.stdout.split())
    assert largest < 150


@pytest.mark.parametrize("down", [0, 4])
def test_tensorrt_rtx_builds_a_step(down: int) -> None:
    """With the dense body, which is what engines are given: TensorRT has no fused form of it, and its loops take no slices of this
    kind."""
    trt: Any = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: flashrib[rtx]")
    config = tiny(3, down)
    model = onnx_from_network(network(config), options=ExportOptions(attention="dense", tile=(8, 12)))
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    definition = builder.create_network(0)
    parser = trt.OnnxParser(definition, logger)
    assert parser.parse(model.SerializeToString()), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    assert builder.build_serialized_network(definition, builder.create_builder_config()) is not None


def test_pooling() -> None:
    x, weight, grid, text = torch.randn(2, 3 + 8 * 12, 2, 5, generator=seeded(0)), torch.rand(4, 4), (8, 12), 3
    node = onnx.helper.make_node("PoolTokens", ["x", "weight", "grid"], ["y"], domain="flashrib", text=text, factor=4)
    attention = operator_model(text, 2, 1.0)
    values = [
        onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 99, 2, 5]),
        onnx.helper.make_tensor_value_info("weight", onnx.TensorProto.FLOAT, [4, 4]),
    ]
    attention.graph.node.append(node)
    attention.graph.input.extend(values)
    attention.graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    q = torch.zeros(2, 99, 1, 4)
    *_, y = run(with_body(attention, "dense"), [q, q, q, torch.tensor(grid), x, weight])
    assert np.abs(y - pool_tokens(x, weight, grid, text).numpy()).max() <= 1e-6
