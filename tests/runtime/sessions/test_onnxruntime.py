"""The ONNX Runtime session, on models of a few nodes made here."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.errors import ModelError, OutOfMemoryError, SessionError, UsageError
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.tiling.upscale import upscale_array

METADATA = ModelInfo(
    architecture="sst-light",
    scale=2,
    alignment=64,
    minimum=33,
    windows=((8, 8), (16, 16)),
    ranks=(8, 16),
    heads=(3, 3),
    parameters=857_341,
    precision="fp32",
    whole_picture=False,
    attention="onnxruntime",
    source_sha256="ab" * 32,
    version="0.1.0",
)

Shape = tuple[int | str, ...]


def nearest(
    shape: Shape = ("n", 3, "h", "w"),
    dtype: int = TensorProto.FLOAT,
    ends: tuple[str, str] = ("input", "output"),
    factor: float = 2.0,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """A model that repeats every pixel `factor` times on both axes."""
    node = helper.make_node(
        "Resize",
        [ends[0], "", "scales"],
        [ends[1]],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    graph = helper.make_graph(
        [node],
        "nearest",
        [helper.make_tensor_value_info(ends[0], dtype, shape)],
        [helper.make_tensor_value_info(ends[1], dtype, (shape[0], shape[1], "oh", "ow"))],
        [helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, factor, factor])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, METADATA.to_properties() if metadata is None else metadata)
    return model


def saved(folder: Path, **options: Any) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(nearest(**options).SerializeToString())
    return path


def ramp(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.linspace(-0.25, 1.25, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def test_session_follows_the_protocol(tmp_path: Path) -> None:
    session = OnnxRuntimeSession(saved(tmp_path), threads=1)
    assert isinstance(session, Session)
    assert session.info == METADATA


@pytest.mark.parametrize(
    "shape", [("n", 3, "h", "w"), (1, 3, "h", "w"), (2, 3, "h", "w"), ("n", 3, 5, 7), (1, 3, 5, 7), (4, 3, 5, 7)]
)
@pytest.mark.parametrize("batch", [1, 3])
def test_run(tmp_path: Path, shape: Shape, batch: int) -> None:
    session = OnnxRuntimeSession(saved(tmp_path, shape=shape))
    pixels = ramp(batch, 3, 5, 7)
    result = session.run(pixels)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, pixels.repeat(2, axis=2).repeat(2, axis=3))
    assert session.info.fixed_size == ((5, 7) if shape[2] == 5 else None)


def test_float16_at_the_ends(tmp_path: Path) -> None:
    session = OnnxRuntimeSession(saved(tmp_path, dtype=TensorProto.FLOAT16))
    pixels = ramp(1, 3, 5, 7)
    result = session.run(pixels)
    assert session.info.io == "fp16"
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result[:, :, ::2, ::2], pixels.astype(np.float16))


@pytest.mark.parametrize("batch", [1, 3])
def test_tiled_picture(batch: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (150, 200, 3), np.uint8)
    session = OnnxRuntimeSession(saved(tmp_path, shape=(batch, 3, 128, 128)))
    result = upscale_array(session, pixels, halo=0)
    np.testing.assert_array_equal(result, pixels.repeat(2, axis=0).repeat(2, axis=1))


def test_metadata_of_the_whole_picture_and_of_other_programs(tmp_path: Path) -> None:
    properties = METADATA.to_properties() | {"flashrib.whole_picture": "true", "author": "Σ", "empty": ""}
    session = OnnxRuntimeSession(saved(tmp_path, metadata=properties))
    assert session.info.whole_picture is True


def test_describe_reads_the_same_properties_as_onnx_runtime(tmp_path: Path) -> None:
    path = saved(tmp_path)
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    properties = runtime.get_modelmeta().custom_metadata_map
    assert describe_onnx(path) == ModelInfo.from_properties(properties, "model") == METADATA


@pytest.mark.parametrize(("precision", "error"), [("bf16", SessionError), ("fp32", ModelError)])
def test_bf16_says_what_to_do(precision: str, error: type[Exception], tmp_path: Path) -> None:
    """Told from the file's precision: where another file lacks a kernel, ONNX Runtime's own words name the operator."""
    weight = helper.make_tensor("stored", TensorProto.FLOAT, [3, 3, 1, 1], [1.0] * 9)
    nodes = [
        helper.make_node("Cast", ["stored"], ["weight"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["input"], ["low"], to=TensorProto.BFLOAT16),
        helper.make_node("Conv", ["low", "weight"], ["made"], name="first_conv"),
        helper.make_node("Cast", ["made"], ["output"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, "h", "w")) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "low", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    helper.set_model_props(model, dataclasses.replace(METADATA, precision=precision).to_properties())
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    message = (
        "computes in bf16, .* --precision fp32 or fp16, or build an engine" if precision == "bf16" else "first_conv"
    )
    with pytest.raises(error, match=rf"model\.onnx: .*{message}") as raised:
        OnnxRuntimeSession(path)
    assert "\n" not in str(raised.value)


def test_describe_needs_no_runnable_model(tmp_path: Path) -> None:
    model = nearest()
    model.graph.node[0].domain = "plugins.of.another.runtime"
    model.producer_version = "1.2.3"
    model.model_version = 2**40
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert describe_onnx(path) == METADATA
    with pytest.raises(
        ModelError, match=r"model\.onnx: ONNX Runtime cannot load this model: .*plugins\.of\.another\.runtime"
    ):
        OnnxRuntimeSession(path)


WHOLE = nearest().SerializeToString()

DAMAGED = {
    "empty": (b"", r"not an ONNX file, or a truncated one \(0 bytes\)"),
    "text": (b"hello world\n" * 10, r"not an ONNX file, or a truncated one \(120 bytes\)"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX file"),
    "zeros": (bytes(1000), "not an ONNX file"),
    "half": (WHOLE[: len(WHOLE) // 2], "not an ONNX file, or a truncated one"),
    "last byte missing": (WHOLE[:-1], "not an ONNX file, or a truncated one"),
    "within the first tag": (b"\x80", "not an ONNX file"),
    "endless number": (b"\xff" * 100, "not an ONNX file"),
    "key that is no text": (b"\x3a\x00\x72\x03\x0a\x01\xff", "not an ONNX file"),
    "no metadata": (nearest(metadata={}).SerializeToString(), "says nothing about itself .*export it"),
    "other metadata": (nearest(metadata={"author": "me"}).SerializeToString(), "says nothing about itself"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for load in (describe_onnx, OnnxRuntimeSession):
        with pytest.raises(ModelError, match=message) as raised:
            load(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_truncations_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for length in range(0, len(WHOLE), 5):
        path.write_bytes(WHOLE[:length])
        with pytest.raises(ModelError):
            describe_onnx(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx: there is no such file"):
        OnnxRuntimeSession(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="there is no such file"):
        OnnxRuntimeSession(tmp_path)


ENDS: dict[str, tuple[dict[str, Any], str]] = {
    "input name": ({"ends": ("x", "output")}, r"maps \['x'\] to \['output'\]"),
    "output name": ({"ends": ("input", "y")}, r"maps \['input'\] to \['y'\]"),
    "bytes": ({"dtype": TensorProto.UINT8}, r"maps tensor\(uint8\) to tensor\(uint8\), .* --precision"),
    "one channel": ({"shape": (1, 1, "h", "w")}, r"the input is \[1, 1, 'h', 'w'\]"),
    "half static": ({"shape": (1, 3, 64, "w")}, r"the input is \[1, 3, 64, 'w'\], .* both static or both dynamic"),
}


@pytest.mark.parametrize(("options", "message"), ENDS.values(), ids=ENDS.keys())
def test_other_inputs_and_outputs_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        OnnxRuntimeSession(saved(tmp_path, **options))


@pytest.mark.parametrize("threads", [0, -2])
def test_threads_are_checked(tmp_path: Path, threads: int) -> None:
    with pytest.raises(UsageError, match=f"threads is {threads}, but"):
        OnnxRuntimeSession(saved(tmp_path), threads=threads)


def test_a_failed_allocation_is_out_of_memory(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # 432 TB, more than any process can address, whatever the machine lets it reserve.
    session = OnnxRuntimeSession(saved(tmp_path, factor=2000.0))
    with pytest.raises(OutOfMemoryError, match="on a batch of 1x3x3000x3000, for lack of memory: ") as raised:
        session.run(np.zeros((1, 3, 3000, 3000), np.float32))
    assert "\n" not in str(raised.value)
    # The session is still good for a batch that fits.
    assert session.run(np.ones((1, 3, 1, 1), np.float32)).shape == (1, 3, 2000, 2000)
    assert capfd.readouterr() == ("", "")


def test_a_batch_that_the_model_refuses(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = OnnxRuntimeSession(saved(tmp_path, shape=(1, 3, 5, 7)))
    with pytest.raises(SessionError, match="ONNX Runtime failed on a batch of 1x3x6x7: "):
        session.run(np.zeros((1, 3, 6, 7), np.float32))
    assert capfd.readouterr() == ("", "")


def test_a_wrong_scale_in_the_metadata_shows(tmp_path: Path) -> None:
    session = OnnxRuntimeSession(saved(tmp_path, factor=3.0))
    with pytest.raises(SessionError, match=r"the shape \(1, 3, 120, 120\) for the tile .* its scale is not 2"):
        upscale_array(session, np.zeros((40, 40, 3), np.uint8))


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    session = OnnxRuntimeSession(saved(tmp_path))
    session.close()
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.run(np.zeros((1, 3, 5, 7), np.float32))


def test_importing_and_describing_needs_no_onnxruntime(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from flashrib.runtime.artifacts.onnx_file import describe_onnx\n"
        f"print(describe_onnx({str(saved(tmp_path))!r}).scale)\n"
        "assert not {'onnxruntime', 'onnx', 'torch'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "2\n"
