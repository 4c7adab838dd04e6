"""ONNX files that no engine can be built from, each one line."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import set_external_data

from flashrib.export.engine.source import engine_bodies, prepared_model, read_source
from flashrib.export.operators.bodies import with_body
from flashrib.export.save import save_onnx
from flashrib.runtime.errors import ModelError
from flashrib.runtime.nvidia.flavours import FLAVOURS
from tests.export.engine.sources import CONFIG, small_model


def changed(change: Callable[[ModelProto], object]) -> ModelProto:
    model = ModelProto()
    model.CopyFrom(small_model())
    change(model)
    return model


def external(model: ModelProto, location: str) -> None:
    tensor = next(t for t in model.graph.initializer if len(t.raw_data) > 500)
    set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL


def rename_input(model: ModelProto) -> None:
    model.graph.input[0].name = "x"


def other_type(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def no_attention(model: ModelProto) -> None:
    for node in list(model.graph.node):
        if node.op_type == "WindowAttention":
            model.graph.node.remove(node)


def test_what_it_reads(tmp_path: Path) -> None:
    save_onnx(small_model(), tmp_path / "m.onnx")
    source = read_source(tmp_path / "m.onnx")
    assert (source.dim, source.batch, source.static, source.io) == (CONFIG.dim, 1, None, "float32")
    assert [(layer.window, layer.heads, layer.tokens) for layer in source.layers] == [
        ((8, 8), 2, 64),
        ((32, 32), 2, 1024),
    ]


@pytest.mark.parametrize(
    ("flavour", "version", "body"),
    [
        ("tensorrt", "10.9.0.34", "padded"),
        ("tensorrt", "10.13.3.9", "padded"),
        ("tensorrt", "10.14.1.48", "attention"),
        ("tensorrt", "11.4.0", "attention"),
        ("rtx", "1.7.1.116", "attention"),
    ],
)
def test_the_body_that_a_version_fuses(flavour: str, version: str, body: str) -> None:
    assert engine_bodies(small_model(), FLAVOURS[flavour], version) == {"WindowAttention": body}


@pytest.mark.parametrize(
    ("body", "operator", "missing"), [("attention", "Attention", "Softmax"), ("padded", "Softmax", "Attention")]
)
def test_a_fixed_size_and_a_body(body: str, operator: str, missing: str, tmp_path: Path) -> None:
    save_onnx(with_body(small_model(), "standard"), tmp_path / "m.onnx")
    source = read_source(tmp_path / "m.onnx")
    model = prepared_model(source, (64, 96), body)
    sides = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in (model.graph.input[0], model.graph.output[0])]
    assert [side[2:] for side in sides] == [[64, 96], [128, 192]]
    operators = {node.op_type for function in model.functions for node in function.node}
    assert operator in operators
    assert missing not in operators
    onnx.checker.check_model(model, full_check=True)


def test_the_hash_covers_external_data(tmp_path: Path) -> None:
    save_onnx(small_model(), tmp_path / "m.onnx", external_above=0)
    first = read_source(tmp_path / "m.onnx").sha256
    data = tmp_path / "m.onnx.data"
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    with pytest.raises(ModelError, match="its weights are not those that it was written with"):
        read_source(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)  # without the hash of the weights, as of before
    kept = [entry for entry in model.metadata_props if entry.key != "flashrib.weights_sha256"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    second = read_source(tmp_path / "m.onnx").sha256
    content[0] ^= 1
    data.write_bytes(content)
    assert len({first, second, read_source(tmp_path / "m.onnx").sha256}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: external(m, "gone.bin"), r"its external data 'gone\.bin' is missing"),
        (lambda m: external(m, "../m.bin"), r"its external data '\.\./m\.bin' lies outside its folder"),
        (lambda m: external(m, "/etc/passwd"), "'/etc/passwd' lies outside its folder"),
        (rename_input, r"maps \['x'\] to \['output'\]"),
        (other_type, "must both be float32 or float16"),
        (no_attention, "no node flashrib::WindowAttention"),
        (lambda m: m.metadata_props.pop(), "another program has changed this ONNX file"),
    ],
)
def test_refused(change: Callable[[ModelProto], object], message: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(changed(change).SerializeToString())
    with pytest.raises(ModelError, match=message) as info:
        read_source(tmp_path / "m.onnx")
    assert str(info.value).startswith(f"{tmp_path / 'm.onnx'}: ")
    assert "\n" not in str(info.value)


def test_truncated(tmp_path: Path) -> None:
    content = small_model().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="truncated"):
        read_source(tmp_path / "m.onnx")
