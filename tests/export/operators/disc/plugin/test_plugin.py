"""CLEAR's attention as a plugin of TensorRT: the model's nodes, the kernel, and what NVIDIA's framework asks."""

import os
import subprocess
import sys

import onnx
import pytest
from onnx import numpy_helper

from flashrib.export.operators.disc.plugin.layer import Layer, compile_kernel, launch, layer_of_shapes
from flashrib.export.operators.disc.plugin.prepare import prepare
from flashrib.export.options import ExportOptions
from flashrib.export.to_onnx import onnx_from_network
from flashrib.model.attention.disc.blocks import block_lists
from flashrib.model.attention.disc.tuning import blocks_for
from flashrib.runtime.errors import UsageError
from tests.model.architectures.clear_dit.cases import network, tiny
from tests.places import ROOT, SHARED

pytest.importorskip("triton", reason="the package triton, which PyTorch brings on Linux, is not installed")

TOOL = SHARED / "tools" / "tensorrt_registration.py"
SCRIPT = ROOT / "tests" / "export" / "operators" / "disc" / "plugin" / "driven.py"


def test_nodes_get_their_lists_once_and_open_sizes_are_refused() -> None:
    model = onnx_from_network(network(tiny(3, 4)), options=ExportOptions(tile=(8, 12)))
    still_open = onnx.ModelProto()
    still_open.CopyFrom(model)
    still_open.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    with pytest.raises(UsageError, match="export it with --tile HxW"):
        prepare(still_open, 80)
    prepare(model, 80)
    nodes = [node for node in model.graph.node if node.op_type == "DiscAttention"]
    assert len(nodes) == 3
    assert len({tuple(node.input[3:]) for node in nodes}) == 1
    blocks = blocks_for(80, 128, 3)
    lists = block_lists((8, 12), 3, blocks.tile, blocks.keys)
    made = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, wanted in zip(nodes[0].input[3:], (lists.starts, lists.full, lists.blocks), strict=True):
        assert (made[name] == wanted).all()
    about = {name: onnx.helper.get_node_attr_value(nodes[0], name) for name in ("height", "width", "pooled", "text")}
    assert about == {"height": 8, "width": 12, "pooled": 6, "text": 5}
    for node in nodes:
        prepared = [attribute.name for attribute in node.attribute]
        assert len(prepared) == len(set(prepared))


@pytest.mark.slow
def test_kernel_and_launch() -> None:
    layer = Layer((8, 12), 70, 4, 0.25, 6, 3, 16)
    kernel = compile_kernel(layer, 80)
    assert kernel.ptx.count(".param .u64") == 8
    how = launch(layer, 80, kernel, 2)
    assert (how.grid, how.threads, how.extra) == (2 * 3 * (2 + 2), 32 * kernel.warps, ())


def test_shapes_that_do_not_belong_together() -> None:
    with pytest.raises(UsageError, match=r"expected q \(B, 166, heads, D\), k \(B, 172, heads, D\)"):
        layer_of_shapes((1, 166, 3, 16), (1, 166, 3, 16), (8, 12), 70, 4, 0.25, 6, "fp16")
    with pytest.raises(UsageError, match="not in fp32"):
        layer_of_shapes((1, 166, 3, 16), (1, 166, 3, 16), (8, 12), 70, 4, 0.25, 0, "fp32")


@pytest.mark.shared
@pytest.mark.slow
def test_framework() -> None:
    """TensorRT 11's framework, without a GPU: it never runs the kernel."""
    if not TOOL.is_file():
        pytest.skip(f"the stand-in for TensorRT's library is not at hand: {TOOL}")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, str(TOOL), str(SCRIPT)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    if "No matching distribution" in result.stderr or "CalledProcessError" in result.stderr:
        pytest.skip("the wheels of the stand-in cannot be installed here")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.splitlines()[-1] == '"done"'
