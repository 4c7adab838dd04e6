"""One weight of one layer is changed, and that layer is named."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from flashrib.export.bisect import bisect, layer_tensors
from flashrib.export.operators.bodies import with_body
from flashrib.export.options import ExportOptions
from flashrib.export.save import save_onnx
from flashrib.export.to_onnx import onnx_from_network
from flashrib.model.config import NetworkConfig
from flashrib.runtime.errors import ModelError, SessionError
from flashrib.runtime.quality.parity_bounds import BOUNDS
from flashrib.runtime.sessions.protocol import Batch
from tests.model.networks import SMALL, SMALL_ESC, small_network
from tests.runtime.models import write_checkpoint
from tests.runtime.sessions.test_onnxruntime import nearest

BOUND = BOUNDS["fp32"].layer
FOLDERS = {"sst": SMALL, "esc": SMALL_ESC}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    for name, config in FOLDERS.items():
        save_onnx(onnx_from_network(write_checkpoint(path / f"{name}.safetensors", config)), path / f"{name}.onnx")
    return path


def batch(config: NetworkConfig = SMALL) -> Batch:
    return np.random.default_rng(3).random((1, 3, config.minimum + 2, config.minimum + 5), np.float32)


def edited(model: ModelProto, layer: str) -> None:
    """Change one weight of a layer: its initialiser `.weight`, or that of the product in front of its bias."""
    initializers = {i.name: i for i in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    chosen = next((initializers[n] for n in (f"{layer}.weight", f"{layer}.to_q") if n in initializers), None)
    if chosen is None:
        total = next(node for node in model.graph.node if f"{layer}.bias" in node.input)
        names = [n for end in total.input if end in producers for n in producers[end].input]
        chosen = next(initializers[n] for n in names if n in initializers)
    values = numpy_helper.to_array(chosen).copy()
    values.flat[values.size // 2] += 0.5
    chosen.CopyFrom(numpy_helper.from_array(values, chosen.name))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("sst", "first"),
        ("sst", "blocks.0.attentions.0.qkv"),
        ("sst", "blocks.0.attentions.1.codes"),
        ("sst", "blocks.0.attentions.1.gate_dwc"),
        ("sst", "blocks.0.ffns.0.last"),
        ("sst", "blocks.0.ffns.1.dwc"),
        ("sst", "blocks.0.conv"),
        ("sst", "upsampler.up_conv"),
        ("esc", "blocks.0.layers.0.ffn.proj"),
        ("esc", "blocks.0.attention.out"),
    ],
)
def test_the_changed_layer_is_named(folder: Path, tmp_path: Path, name: str, layer: str) -> None:
    model = onnx.load(folder / f"{name}.onnx")
    edited(model, layer)
    onnx.save(model, tmp_path / "edited.onnx")
    picture = batch(FOLDERS[name])
    for reference in (f"{name}.safetensors", f"{name}.onnx"):
        first, _ = bisect(folder / reference, tmp_path / "edited.onnx", picture, BOUND)
        assert first is not None
        assert (first.layer, first.end) == (layer, "output")
        assert f"the output of {layer} differs by" in str(first)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("form", ["onnxruntime", "standard"])
def test_equal_models_do_not_diverge(folder: Path, tmp_path: Path, name: str, form: str) -> None:
    save_onnx(with_body(onnx.load(folder / f"{name}.onnx"), form), tmp_path / "model.onnx")
    first, compared = bisect(folder / f"{name}.safetensors", tmp_path / "model.onnx", batch(FOLDERS[name]), BOUND)
    assert first is None
    layers = {divergence.layer for divergence in compared}
    assert len(layers) >= 14
    assert compared[-1].layer == "output"


def test_a_wrong_attention_is_found_between_the_layers(folder: Path, tmp_path: Path) -> None:
    """The body of the operator loses a term: every layer itself is right."""
    model = with_body(onnx.load(folder / "sst.onnx"), "standard")
    function = next(f for f in model.functions if f.name == "WindowAttention")
    softmax = next(node for node in function.node if node.op_type == "Softmax")
    softmax.input[0] = "content"
    onnx.save(model, tmp_path / "edited.onnx")
    first, _ = bisect(folder / "sst.safetensors", tmp_path / "edited.onnx", batch(), BOUND)
    assert first is not None
    assert (first.layer, first.end) == ("blocks.0.attentions.0.out", "input")
    assert "the input of blocks.0.attentions.0.out (after blocks.0.attentions.0.gate" in str(first)


def test_overflow_is_named_where_it_begins(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "sst.onnx")
    (bias,) = (i for i in model.graph.initializer if i.name == "blocks.0.ffns.0.proj.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(bias.dims, np.inf, np.float32), bias.name))
    onnx.save(model, tmp_path / "edited.onnx")
    first, _ = bisect(folder / "sst.safetensors", tmp_path / "edited.onnx", batch(), BOUND)
    assert str(first) == "the output of blocks.0.ffns.0.proj holds NaN or infinity"


def test_casts_do_not_hide_a_layer(folder: Path, tmp_path: Path) -> None:
    """A bias that is stored in half precision and cast still names its layer."""
    model = onnx.load(folder / "sst.onnx")
    (bias,) = (i for i in model.graph.initializer if i.name == "blocks.0.ffns.0.proj.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias).astype(np.float16), bias.name))
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == bias.name:
                node.input[index] = "wide"
    model.graph.node.insert(0, helper.make_node("Cast", [bias.name], ["wide"], to=TensorProto.FLOAT))
    assert ("blocks.0.ffns.0.proj", "output") in layer_tensors(model)
    onnx.save(model, tmp_path / "edited.onnx")
    first, _ = bisect(folder / "sst.safetensors", tmp_path / "edited.onnx", batch(), BOUND)
    assert first is not None
    assert (first.layer, first.end) == ("blocks.0.ffns.0.proj", "output")


def test_bf16_is_emulated(folder: Path, tmp_path: Path) -> None:
    """ONNX Runtime could not run this file."""
    model = onnx_from_network(small_network(), options=ExportOptions(precision="bf16"))
    onnx.save(model, tmp_path / "right.onnx")
    bias = next(i for i in model.graph.initializer if i.name == "blocks.0.ffns.0.dwc.bias")
    values = numpy_helper.to_array(bias) + 1
    bias.CopyFrom(numpy_helper.from_array(values.astype(numpy_helper.to_array(bias).dtype), bias.name))
    onnx.save(model, tmp_path / "edited.onnx")
    right, compared = bisect(folder / "sst.onnx", tmp_path / "right.onnx", batch(), BOUNDS["bf16"].layer)
    assert right is None
    assert max(divergence.rms_ratio for divergence in compared) > 1e-3  # it did compute in bf16
    first, _ = bisect(folder / "sst.onnx", tmp_path / "edited.onnx", batch(), BOUNDS["bf16"].layer)
    assert first is not None
    assert (first.layer, first.end) == ("blocks.0.ffns.0.dwc", "output")


def test_models_without_common_layers(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign.onnx").write_bytes(nearest().SerializeToString())
    with pytest.raises(ModelError, match=r"foreign\.onnx: shares no layer's name with .*sst\.onnx"):
        bisect(folder / "sst.onnx", tmp_path / "foreign.onnx", batch(), BOUND)


def test_a_file_that_does_not_run(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "sst.onnx")
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "edited.onnx")
    with pytest.raises(SessionError, match=r"edited\.onnx: ONNX Runtime cannot show its layers: "):
        bisect(folder / "sst.onnx", tmp_path / "edited.onnx", batch(), BOUND)
    (tmp_path / "text.onnx").write_bytes(b"\x08no model")
    with pytest.raises(ModelError, match=r"text\.onnx: cannot be loaded"):
        bisect(folder / "sst.onnx", tmp_path / "text.onnx", batch(), BOUND)
