"""Heads that are no multiples of 8 channels are completed in the body for ONNX Runtime, others stay as they are."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from flashrib.export.operators.bodies import with_body
from flashrib.export.operators.window.row import widths_of_heads

HEADS = 2


def layer(head: int, rank: int) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    node = helper.make_node(
        "WindowAttention",
        ["qkv", "pos_q", "pos_k"],
        ["out"],
        domain="flashrib",
        window=[4, 6],
        num_heads=HEADS,
        shift=[1, 2],
    )
    codes = [random.normal(0, 0.3, (HEADS, 24, rank)).astype(np.float32) for _ in range(2)]
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("qkv", TensorProto.FLOAT, ["B", "H", "W", 3 * HEADS * head])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["B", "H", "W", HEADS * head])],
        [numpy_helper.from_array(values, name) for values, name in zip(codes, ("pos_q", "pos_k"), strict=True)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("flashrib", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize(
    ("head", "rank", "completed"), [(16, 16, False), (30, 34, True), (16, 3, True), (20, 12, True)]
)
def test_results_are_the_same(head: int, rank: int, completed: bool) -> None:
    plain = layer(head, rank)
    assert widths_of_heads(plain, plain.graph.node[0]) == (head, head + rank)
    model = with_body(plain, "onnxruntime")
    assert (b"completed_v" in model.SerializeToString()) == completed
    qkv = np.random.default_rng(1).normal(0, 0.3, (2, 9, 13, 3 * HEADS * head)).astype(np.float32)
    found, wanted = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"qkv": qkv})[
            0
        ]
        for m in (model, with_body(plain, "standard"))
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
