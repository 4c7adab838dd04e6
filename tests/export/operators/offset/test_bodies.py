"""Both bodies of `flashrib::OffsetAttention` compute in ONNX Runtime what the operator's definition says."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor

from flashrib.export.operators.bodies import with_body
from flashrib.model.attention.fibonacci import offset_attention
from tests.model.attention.fibonacci.cases import LAYERS, layer

BODIES = ["standard", "dense"]
MASKED = ["neg_inf", "zero_logit"]
TYPES = {"float32": (torch.float32, TensorProto.FLOAT), "float16": (torch.float16, TensorProto.FLOAT16)}


def model_of(
    qkv: Tensor, offsets: Tensor, heads: int, mode: str, body: str, kind: int = TensorProto.FLOAT
) -> ModelProto:
    """A model of one node, any number of pictures."""
    attributes = {"num_heads": heads, "mask_mode": MASKED.index(mode)}
    node = helper.make_node(
        "OffsetAttention", ["qkv", "offsets"], ["out"], name="layer", domain="flashrib", **attributes
    )
    tokens, channels = qkv.shape[1:]
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("qkv", kind, ["batch", tokens, channels])],
        [helper.make_tensor_value_info("out", kind, ["batch", tokens, channels // 3])],
        [numpy_helper.from_array(offsets.numpy(), "offsets")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("flashrib", 1)]
    return with_body(helper.make_model(graph, opset_imports=opsets, ir_version=10), body)


def run(model: ModelProto, qkv: Tensor) -> Tensor:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    out = session.run(None, {"qkv": qkv.numpy()})[0]
    assert isinstance(out, np.ndarray)
    return torch.from_numpy(out)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("mode", MASKED)
@pytest.mark.parametrize("name", LAYERS)
def test_definition(name: str, mode: str, body: str) -> None:
    qkv, offsets, heads = layer(name)
    wanted = offset_attention(qkv, offsets, heads, mode, form="reference")
    out = run(model_of(qkv, offsets, heads, mode, body), qkv.float())
    assert (out - wanted).abs().max() <= 1e-5


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("mode", MASKED)
def test_float16(mode: str, body: str) -> None:
    qkv, offsets, heads = layer("grid-7")
    rounded = qkv.half()
    wanted = offset_attention(rounded.double(), offsets, heads, mode, form="reference")
    out = run(model_of(qkv, offsets, heads, mode, body, TensorProto.FLOAT16), rounded)
    assert out.dtype == torch.float16
    assert ((out - wanted).square().mean() / wanted.square().mean()).sqrt() <= 1e-3


@pytest.mark.parametrize("mode", MASKED)
def test_large_logits(mode: str) -> None:
    qkv, offsets, heads = layer("grid-7")
    qkv[..., :48] *= 100
    wanted = offset_attention(qkv, offsets, heads, mode, form="reference")
    out = run(model_of(qkv, offsets, heads, mode, "standard"), qkv.float())
    assert (out - wanted).abs().max() <= 2e-4


def test_the_loop_stores_no_scores() -> None:
    """The only constants of N elements or more are made from the offsets when the file is loaded."""
    qkv, offsets, heads = layer("grid-7")
    model = model_of(qkv, offsets, heads, "neg_inf", "standard")
    assert model.ByteSize() < 6000
