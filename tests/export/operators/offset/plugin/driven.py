"""Run by `test_plugin.py` under the shared tool: `driven.py CHECK ...`; prints JSON."""

import json
import sys
from typing import Any
from unittest import mock

import pytest
import tensorrt as trt
from tensorrt_registration import drive

from flashrib.export.operators.offset.plugin.layer import Layer, compile_kernel, launch, tactics
from flashrib.export.operators.offset.row import OFFSET_ATTENTION
from flashrib.export.operators.plugin.model import register

NAME = "flashrib::OffsetAttention"
CAPABILITY = 90


def attributes(layer: Layer) -> dict[str, Any]:
    """In the order of the registration, as the ONNX node has them."""
    return {"num_heads": layer.heads, "mask_mode": int(layer.zero_logit), "capability": CAPABILITY}


def ask(layer: Layer, inputs: list[Any], tactic: int | None = None) -> dict[str, Any]:
    """What the framework finds out. The tool knows floating-point types alone, so that its "fp32" has to stand for int32."""
    with mock.patch.object(trt, "float32", trt.int32):
        answer: dict[str, Any] = drive(NAME, inputs, attributes(layer), tactic=tactic)
    return answer


def check(layer: Layer, batch: int, tokens: int, tactic: int | None = None) -> None:
    """The framework's answers are what `test_plugin.py` launches."""
    width = layer.heads * layer.head_dim
    inputs = [((batch, tokens, 3 * width), layer.dtype), ((layer.heads, layer.listed), "fp32")]
    found = ask(layer, inputs, tactic)
    choices = tactics(layer)
    tiles = choices[(tactic or 1) - 1]
    kernel = compile_kernel(layer, CAPABILITY, tiles)
    how = launch(layer, tiles, kernel, batch, tokens)
    assert found["outputs"] == [((batch, tokens, width), layer.dtype)], found["outputs"]
    wanted = [[(dtype, "LINEAR"), ("fp32", "LINEAR"), (dtype, "LINEAR")] for dtype in ("fp16", "bf16")]
    assert found["combinations"] == wanted, found["combinations"]
    assert found["tactics"] == list(range(1, len(choices) + 1)), found["tactics"]
    assert found["kernel"] == kernel.name
    assert found["ptx"] == kernel.ptx.encode()
    assert found["grid"] == (how.grid, 1, 1), (found["grid"], how.grid)
    assert found["block"] == (how.threads, 1, 1)
    assert found["shared_mem"] == how.shared
    assert found["extra_args"] == list(how.extra), found["extra_args"]


def check_masks() -> None:
    for zero_logit in (False, True):
        layer = Layer(12, 64, 4, zero_logit)
        for number in range(1, len(tactics(layer)) + 1):
            check(layer, 3, 197, number)


def check_types() -> None:
    check(Layer(3, 16, 5, False, "bf16"), 1, 65)


def check_mixed_types() -> None:
    inputs = [((1, 65, 144), "fp16"), ((3, 5), "fp16")]
    with pytest.raises(ValueError, match="no combination"):
        ask(Layer(3, 16, 5, False), inputs)


def check_model() -> None:
    """The nodes of an exported network, with the shapes and types that its neighbours give them."""
    from flashrib.export.operators.bodies import operator_nodes
    from flashrib.export.operators.plugin.model import with_plugin
    from flashrib.export.options import ExportOptions
    from flashrib.export.to_onnx import onnx_from_network
    from flashrib.model.checkpoint import load_model
    from tests.test_digits import TRAINED

    model = onnx_from_network(load_model(TRAINED), options=ExportOptions(precision="fp16"))
    nodes = operator_nodes(with_plugin(model, trt, ("sm90",)))
    assert len(nodes) == 3
    for node in nodes:
        values = {a.name: a.i for a in node.attribute}
        assert (values["num_heads"], values["mask_mode"], values["capability"]) == (3, 0, CAPABILITY)


def main() -> None:
    register(trt, [OFFSET_ATTENTION])
    for name in sys.argv[1:]:
        globals()[f"check_{name}"]()
    print(json.dumps(sys.argv[1:]))


if __name__ == "__main__":
    main()
