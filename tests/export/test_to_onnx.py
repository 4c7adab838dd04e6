"""Exported files compute what the official code computes, in ONNX Runtime, at sizes that are no multiples of anything."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from flashrib.export.operators.bodies import operator_nodes, with_body
from flashrib.export.operators.window.row import WINDOW_ATTENTION
from flashrib.export.options import ExportOptions
from flashrib.export.to_file import export_file
from flashrib.export.to_onnx import onnx_from_network, save_onnx
from flashrib.model import SSTConfig
from flashrib.model.architectures.registry import network_from_config
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.errors import FlashribError, UsageError
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from tests.model.networks import SMALL_ESC, two_blocks
from tests.official import NETWORKS, PIPELINES, load_vector, seeded

# The ESC vectors of kind "network" leave the picture's completion out, which an exported ESC contains.
VECTORS = [name for name in NETWORKS if name.startswith("sst")] + PIPELINES
FAST = {"sst_rect_shift_x2", "sst_nnconv_x3_dwc"}


def run(model: ModelProto, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run picture by picture: exported files have batch 1."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": picture[None]})[0] for picture in batch])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in VECTORS]
)
def test_official_vectors(name: str) -> None:
    vector = load_vector(name)
    network = network_from_config(vector.config)
    network.load_state_dict(vector.state_dict)
    model = onnx_from_network(network.eval())
    for body in WINDOW_ATTENTION.bodies:
        output = run(with_body(model, body), vector.tensors["input"].numpy())
        assert np.abs(output - vector.tensors["output_f64"].numpy()).max() <= 1e-4, body


SMALL = SSTConfig(
    "sst-custom",
    dim=12,
    windows=((4, 4), (8, 8)),
    heads=(2, 3),
    ranks=(3, 5),
    blocks=1,
    ffn_dim=18,
)


@pytest.fixture(scope="module")
def small() -> tuple[torch.nn.Module, ModelProto]:
    torch.manual_seed(5)
    network = network_from_config(SMALL).eval()
    return network, onnx_from_network(network, source_sha256="ab" * 32)


@pytest.mark.parametrize("size", [(5, 5), (8, 16), (9, 31), (40, 7)])
def test_any_size(small: tuple[torch.nn.Module, ModelProto], size: tuple[int, int]) -> None:
    network, model = small
    picture = torch.rand(1, 3, *size, generator=seeded(1))
    with torch.no_grad():
        expected = network(picture).numpy()
    assert np.abs(run(model, picture.numpy()) - expected).max() <= 1e-5


def test_conventions(small: tuple[torch.nn.Module, ModelProto]) -> None:
    """One input `input`, one output `output`, NCHW, batch and channels static, strict shape inference (vs-mlrt, chaiNNer)."""
    _, model = small
    (graph_input,), (graph_output,) = model.graph.input, model.graph.output
    assert (graph_input.name, graph_output.name) == ("input", "output")
    dims = [d.dim_value or d.dim_param for d in graph_input.type.tensor_type.shape.dim]
    assert dims == [1, 3, "height", "width"]
    assert [d.dim_value for d in graph_output.type.tensor_type.shape.dim][:2] == [1, 3]
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True)


def test_no_traces_of_the_machine(small: tuple[torch.nn.Module, ModelProto]) -> None:
    assert b"/site-packages/" not in small[1].SerializeToString()


def test_constants_are_stored_as_recipes(small: tuple[torch.nn.Module, ModelProto]) -> None:
    """No initialiser is as large as the constants of window 8: the position codes are computed at load."""
    largest = max(int(np.prod(i.dims)) for i in small[1].graph.initializer)
    assert largest < 3 * 64 * 5 * 2


def test_saved_file_describes_itself(small: tuple[torch.nn.Module, ModelProto], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_onnx(small[1], path)
    about = describe_onnx(path)
    assert (about.architecture, about.scale, about.alignment, about.minimum) == ("sst-custom", 2, 8, 5)
    assert about.windows == ((4, 4), (8, 8))
    assert about.ranks == (3, 5)
    assert about.heads == (2, 3)
    assert about.source_sha256 == "ab" * 32
    assert about.parameters == sum(p.numel() for p in small[0].parameters())
    session = OnnxRuntimeSession(path)
    assert (session.info.scale, session.info.alignment, session.info.minimum) == (2, 8, 5)
    session.close()
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_unwritable_file_is_one_line(small: tuple[torch.nn.Module, ModelProto], tmp_path: Path) -> None:
    with pytest.raises(FlashribError, match="cannot be written"):
        save_onnx(small[1], tmp_path / "missing" / "model.onnx")


def test_unknown_form(small: tuple[torch.nn.Module, ModelProto]) -> None:
    with pytest.raises(UsageError, match=r"'flash'.*onnxruntime, standard, attention"):
        with_body(small[1], "flash")


def test_forms_are_exchanged_and_raise_the_opset(small: tuple[torch.nn.Module, ModelProto]) -> None:
    native = with_body(small[1], "attention")
    assert {o.domain: o.version for o in native.opset_import} == {"": 23, "flashrib": 1}
    onnx.checker.check_model(native, full_check=True)
    assert {o.domain: o.version for o in small[1].opset_import} == {"": 20, "flashrib": 1, "com.microsoft": 1}


def test_without_a_body_the_node_is_left_to_a_plugin(small: tuple[torch.nn.Module, ModelProto]) -> None:
    bare = with_body(small[1], "none")
    onnx.checker.check_model(bare)
    assert [function.name for function in bare.functions] == ["PositionCodes"]
    assert len(operator_nodes(bare)) == len(SMALL.windows) * SMALL.blocks
    with pytest.raises(Exception, match="WindowAttention"):
        run(bare, np.zeros((1, 3, 8, 8), np.float32))
    picture = np.random.default_rng(0).random((1, 3, 9, 31), np.float32)
    again = with_body(bare, "onnxruntime")
    np.testing.assert_array_equal(run(again, picture), run(small[1], picture))


@pytest.mark.slow
def test_esc_preset_whole_picture() -> None:
    torch.manual_seed(0)
    network = two_blocks("esc-rib", 4)
    picture = torch.rand(1, 3, 37, 70, generator=seeded(2))
    with torch.no_grad():
        expected = network.upscale(picture).numpy()
    assert np.abs(run(onnx_from_network(network), picture.numpy()) - expected).max() <= 1e-4


@pytest.mark.parametrize(("precision", "opset"), [("fp32", None), ("fp32", 18), ("fp16", None)])
def test_inlined_files_hold_standard_operators_alone(
    small: tuple[torch.nn.Module, ModelProto], precision: str, opset: int | None, tmp_path: Path
) -> None:
    """For runtimes without model-local functions (OpenVINO); sizes that are no multiples, so that padding is exercised."""
    network = small[0]
    options = ExportOptions(precision=precision, opset=opset, inline=True)
    export_file(network, tmp_path / "m.onnx", options)  # checks it against the network
    model = onnx.load(tmp_path / "m.onnx")
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert {o.domain: o.version for o in model.opset_import} == {"": opset or 20}
    onnx.checker.check_model(model, full_check=True)
    assert describe_onnx(tmp_path / "m.onnx").attention == "standard"
    if precision == "fp32":
        picture = torch.rand(1, 3, 9, 31, generator=seeded(1))
        with torch.no_grad():
            expected = network(picture).numpy()
        assert np.abs(run(model, picture.numpy()) - expected).max() <= 1e-5


def test_the_sizes_of_the_output_have_plain_names(small: tuple[torch.nn.Module, ModelProto]) -> None:
    network = network_from_config(SMALL_ESC).eval()
    for model in (small[1], onnx_from_network(network)):
        dims = [d.dim_param for d in model.graph.output[0].type.tensor_type.shape.dim[2:]]
        assert dims == ["2*height", "2*width"]
