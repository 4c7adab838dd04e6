"""Which node computes in which type, and what the emulation of low precision sees that ONNX Runtime hides."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from flashrib.export.emulate import emulated
from flashrib.export.precision import with_precision
from flashrib.runtime.errors import ModelError
from tests.export.graphs import graph, run

# The picture's own path (Resize, the last Add) beside a product, a mean and a LayerNormalization.
NETWORK = """g (float[1, 3, 4, 4] input) => (float[1, 3, 8, 8] output) {
  c = Conv<kernel_shape = [1, 1]>(input, w)
  n = LayerNormalization<axis = -1>(c, s)
  m = ReduceMean<keepdims = 1>(n, axes)
  p = Mul(n, m)
  d = Conv<kernel_shape = [1, 1]>(p, v)
  up = DepthToSpace<blocksize = 2, mode = "CRD">(d)
  big = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(input, , factors)
  output = Add(up, big)
}"""


def network(weight: float = 0.5) -> ModelProto:
    random = np.random.default_rng(0)
    return graph(
        NETWORK,
        opset=23,
        w=np.full((6, 3, 1, 1), weight, np.float32) + random.random((6, 3, 1, 1), dtype=np.float32),
        s=np.ones(4, np.float32),
        axes=np.array([2, 3]),
        v=random.random((12, 6, 1, 1), dtype=np.float32),
        factors=np.array([1, 1, 2, 2], np.float32),
    )


def types(model: ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    return {v.name: v.type.tensor_type.elem_type for v in values}


@pytest.mark.parametrize(("precision", "low"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_types(precision: str, low: int) -> None:
    model = with_precision(network(), precision, "fp32")
    onnx.checker.check_model(model, full_check=True)
    seen = types(model)
    assert [seen[name] for name in ("input", "big", "m", "output")] == [TensorProto.FLOAT] * 4
    assert [seen[name] for name in ("c", "n", "d", "up")] == [low] * 4
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert stored == {"w": low, "s": low, "v": low, "axes": TensorProto.INT64, "factors": TensorProto.FLOAT}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_half_ends(precision: str) -> None:
    model = with_precision(network(), precision, "fp16")
    onnx.checker.check_model(model, full_check=True)
    seen = types(model)
    assert seen["input"] == seen["output"] == TensorProto.FLOAT16
    assert seen["big"] == (TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT)


def test_fp32_stays_as_it_is() -> None:
    model = network()
    assert with_precision(model, "fp32", "fp32") == model


def test_a_weight_beyond_fp16() -> None:
    with pytest.raises(
        ModelError, match=r"the weight 'w' reaches 7e\+04, too much for fp16: export with --precision bf16"
    ):
        with_precision(network(7e4), "fp16", "fp32")


@pytest.mark.parametrize(("precision", "most"), [("fp16", 2e-2), ("bf16", 2e-1)])
def test_emulation_is_near_and_not_exact(precision: str, most: float) -> None:
    x = np.random.default_rng(1).random((1, 3, 4, 4), dtype=np.float32)
    exact = run(network(), input=x)
    rounded = run(emulated(with_precision(network(), precision, "fp32")), input=x)
    error = np.abs(rounded.astype(np.float64) - exact).max()
    assert 0 < error < most


def test_emulation_rounds_as_bfloat16_does() -> None:
    model = with_precision(
        graph("g (float[1, 3] x) => (float[1, 3] y) { y = MatMul(x, w) }", opset=23, w=np.eye(3, dtype=np.float32)),
        "bf16",
        "fp32",
    )
    x = np.array([[1.001, 3.3, 1 / 3]], np.float32)
    np.testing.assert_array_equal(run(emulated(model), x=x), x.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_emulation_sees_the_overflow_that_onnxruntime_hides() -> None:
    """(3 * 60000) * 1e-4: the product does not fit fp16."""
    text = "g (float[1, 1] x) => (float[1, 1] y) { a = MatMul(x, w) y = MatMul(a, v) }"
    weights = {"w": np.full((1, 1), 60000, np.float32), "v": np.full((1, 1), 1e-4, np.float32)}
    model = with_precision(graph(text, **weights), "fp16", "fp32")
    x = np.full((1, 1), 3, np.float32)
    assert np.isfinite(run(model, x=x)).all()
    assert np.isinf(run(emulated(model), x=x)).all()
    narrow = with_precision(graph(text, opset=23, **weights), "bf16", "fp32")
    assert np.isfinite(run(emulated(narrow), x=x)).all()
