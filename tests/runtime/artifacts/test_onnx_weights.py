"""A file whose weights were damaged is refused; one that another program converted, or of an older version, is taken."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flashrib.export.save import hash_of_initializers, save_onnx
from flashrib.runtime.artifacts.onnx_file import describe_onnx, external_files
from flashrib.runtime.artifacts.onnx_weights import check_weights
from flashrib.runtime.errors import ModelError
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from tests.runtime.sessions.test_onnxruntime import METADATA, nearest


def model() -> onnx.ModelProto:
    """Nearest-neighbour upscaling and three constants, one of them small, one in a typed field."""
    made = nearest()
    rng = np.random.default_rng(1)
    tensors = [
        numpy_helper.from_array(rng.random(shape, np.float32), f"w{i}") for i, shape in enumerate([(40, 50), (3,)])
    ]
    made.graph.initializer.extend([*tensors, helper.make_tensor("typed", TensorProto.FLOAT, [2], [1.5, 2.5])])
    about = dataclasses.replace(METADATA, weights_sha256=hash_of_initializers(made))
    helper.set_model_props(made, about.to_properties())
    return made


def check(path: Path) -> None:
    external_files(path)
    check_weights(path, describe_onnx(path))


@pytest.mark.parametrize("external", [False, True])
def test_what_was_written_is_taken(external: bool, tmp_path: Path) -> None:
    save_onnx(model(), tmp_path / "m.onnx", external_above=0 if external else 10**9)
    assert (tmp_path / "m.onnx.data").exists() is external
    check(tmp_path / "m.onnx")
    OnnxRuntimeSession(tmp_path / "m.onnx").close()


@pytest.mark.parametrize("external", [False, True])
def test_one_flipped_bit_is_found(external: bool, tmp_path: Path) -> None:
    made = model()
    save_onnx(made, tmp_path / "m.onnx", external_above=0 if external else 10**9)
    large, small, typed = (numpy_helper.to_array(t).tobytes() for t in made.graph.initializer[-3:])
    for values, name in ((large, "m.onnx.data" if external else "m.onnx"), (small, "m.onnx"), (typed, "m.onnx")):
        path = tmp_path / name
        content = path.read_bytes()
        start = content.index(values)
        for position in (start, start + len(values) // 2, start + len(values) - 1):
            damaged = bytearray(content)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(ModelError, match=r"m\.onnx: its weights are not those that it was written with"):
                OnnxRuntimeSession(tmp_path / "m.onnx")
        path.write_bytes(content)


def test_a_conversion_by_another_program_is_none_of_our_business(tmp_path: Path) -> None:
    made = model()
    half = numpy_helper.to_array(made.graph.initializer[-3]).astype(np.float16)
    made.graph.initializer[-3].CopyFrom(numpy_helper.from_array(half, "w0"))
    save_onnx(made, tmp_path / "m.onnx")
    check(tmp_path / "m.onnx")


def test_older_files_state_nothing(tmp_path: Path) -> None:
    made = model()
    helper.set_model_props(made, METADATA.to_properties())
    made.graph.initializer[-1].float_data[0] = 9
    save_onnx(made, tmp_path / "m.onnx")
    check(tmp_path / "m.onnx")


@pytest.mark.parametrize("layout", ["hugging face", "link to the file alone", "link to a link"])
def test_external_data_behind_links(layout: str, tmp_path: Path) -> None:
    """As huggingface_hub lays files out: names are links into `blobs`, whose files are named by their hashes."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save_onnx(model(), tmp_path / "m.onnx", external_above=0)
    if layout == "link to the file alone":
        (snapshot / "other.onnx").symlink_to(tmp_path / "m.onnx")
        path = snapshot / "other.onnx"
    else:
        (tmp_path / "m.onnx").rename(blobs / "1111")
        (tmp_path / "m.onnx.data").rename(blobs / "2222")
        (snapshot / "m.onnx").symlink_to("../../blobs/1111")
        (snapshot / "m.onnx.data").symlink_to("../../blobs/2222")
        path = snapshot / "m.onnx"
    if layout == "link to a link":
        (tmp_path / "again.onnx").symlink_to(path)
        path = tmp_path / "again.onnx"
    check(path)
    session = OnnxRuntimeSession(path)
    assert session.run(np.ones((1, 3, 4, 5), np.float32)).shape == (1, 3, 8, 10)


def test_external_data_may_not_lead_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    save_onnx(model(), tmp_path / "here" / "m.onnx", external_above=0)
    (tmp_path / "here" / "m.onnx.data").rename(tmp_path / "secret")
    (tmp_path / "here" / "m.onnx.data").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match=r"'m\.onnx\.data' lies outside its folder"):
        external_files(tmp_path / "here" / "m.onnx")
