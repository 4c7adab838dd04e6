"""Run by `test_registration.py` under the shared tool: `driven.py CHECK ...` or `driven.py presets NAME ...`; prints JSON."""

import json
import sys
from typing import Any

import numpy as np
import pytest
import tensorrt as trt
from tensorrt_registration import drive

from benchmarks.plugin_kernels import preset_layers
from flashrib.export.operators.plugin.model import register
from flashrib.export.operators.window.plugin.compile import compile_kernel
from flashrib.export.operators.window.plugin.launch import launch
from flashrib.export.operators.window.plugin.layer import Layer, tactics
from flashrib.export.operators.window.row import WINDOW_ATTENTION
from flashrib.model import preset

NAME = "flashrib::WindowAttention"
CAPABILITY = 90


def attributes(layer: Layer, capability: int = CAPABILITY) -> dict[str, Any]:
    """In the order of the registration, as the ONNX node has them."""
    return {
        "window": np.array(layer.window, np.int32),
        "num_heads": layer.heads,
        "shift": np.array(layer.shift, np.int32),
        "capability": capability,
    }


def ask(layer: Layer, size: tuple[int, int, int], tactic: int | None = None) -> dict[str, Any]:
    """What the framework finds out about a layer on a map (B, H, W), none of whose dimensions is known when it asks."""
    shapes = [(*size, 3 * layer.heads * layer.head_dim), *2 * [(layer.heads, layer.tokens, layer.rank)]]
    answer: dict[str, Any] = drive(NAME, [(shape, layer.dtype) for shape in shapes], attributes(layer), tactic=tactic)
    return answer


def check(layer: Layer, size: tuple[int, int, int], tactic: int | None = None) -> None:
    """The framework's answers are what `tests/export/operators/window/plugin/test_gpu.py` launches."""
    found = ask(layer, size, tactic)
    choices = tactics(layer, CAPABILITY)
    blocks = choices[(tactic or 1) - 1]
    kernel = compile_kernel(layer, CAPABILITY, blocks)
    how = launch(layer, blocks, kernel, *size)
    assert found["outputs"] == [((*size, layer.heads * layer.head_dim), layer.dtype)], found["outputs"]
    assert found["combinations"] == [4 * [(dtype, "LINEAR")] for dtype in ("fp16", "bf16")], found["combinations"]
    assert found["tactics"] == list(range(1, len(choices) + 1)), found["tactics"]
    assert found["kernel"] == kernel.name
    assert found["ptx"] == kernel.ptx.encode()
    assert found["grid"] == (how.grid, 1, 1), (found["grid"], how.grid)
    assert found["block"] == (how.threads, 1, 1)
    assert found["shared_mem"] == how.shared
    assert found["extra_args"] == list(how.extra), found["extra_args"]


def presets(*names: str) -> list[str]:
    done = []
    for layer, having in preset_layers().items():
        for name in set(having) & set(names):
            least = preset(name).minimum
            check(layer, (1, least, 2 * layer.window[1] + 1))
            check(layer, (2, 180, 320))
            done.append(f"{name}: {layer}")
    return done


def check_tactics() -> None:
    for layer in (Layer((96, 96), 6, 30, 34), Layer((4, 8), 2, 16, 16, (2, 4))):
        for number in range(1, len(tactics(layer, CAPABILITY)) + 1):
            check(layer, (3, 131, 97), number)


def check_types() -> None:
    check(Layer((16, 16), 3, 16, 16, dtype="bf16"), (1, 70, 33))


def check_attributes() -> None:
    """The parser hands over integers of 32 bit, single ones as arrays of one element."""
    creator = trt.get_plugin_registry().get_creator("WindowAttention", "1", "flashrib")
    names = [field.name for field in creator.field_names]
    assert names == ["window", "num_heads", "shift", "capability"], names
    given = {"window": [8, 16], "num_heads": [3], "shift": [4, 0], "capability": [89]}
    arrays = {name: np.array(values, np.int32) for name, values in given.items()}
    fields = [trt.PluginField(name, array, trt.PluginFieldType.INT32) for name, array in arrays.items()]
    made = creator.create_plugin(
        "WindowAttention",
        "flashrib",
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.PREFER_AOT,
    )
    assert type(made).__name__ == "_TemplateAOTPlugin", type(made)
    assert {name: np.atleast_1d(value).tolist() for name, value in made.attrs.items()} == given, made.attrs
    assert (type(made.attrs["num_heads"]), made.attrs["window"].dtype) == (int, np.int32)


def check_mixed_types() -> None:
    codes = (2, 64, 16)
    with pytest.raises(ValueError, match="no combination"):
        drive(NAME, [((1, 8, 8, 96), "fp16"), (codes, "bf16"), (codes, "bf16")], attributes(Layer((8, 8), 2, 16, 16)))


def check_model() -> None:
    """A node of an exported model, with the shapes and types that its neighbours give it."""
    import onnx

    from flashrib.export.operators.bodies import operator_nodes
    from flashrib.export.operators.plugin.model import with_plugin
    from tests.export.engine.sources import small_model

    model = with_plugin(small_model("bf16"), trt, ("sm90",))
    for node, window in zip(operator_nodes(model), ((8, 8), (32, 32)), strict=True):
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert values.pop("plugin_namespace") == b"flashrib"
        assert values.pop("plugin_version") == b"1"
        layer = Layer(window, values["num_heads"], 16, 16, tuple(values["shift"]), "bf16")
        assert sorted(values) == sorted(attributes(layer))
        assert all(np.array_equal(values[name], value) for name, value in attributes(layer).items())
        check(layer, (1, 64, 64))


def main() -> None:
    register(trt, [WINDOW_ATTENTION])
    if sys.argv[1] == "presets":
        done = presets(*sys.argv[2:])
    else:
        done = sys.argv[1:]
        for name in done:
            globals()[f"check_{name}"]()
    print(json.dumps(done))


if __name__ == "__main__":
    main()
