"""Model -> file, complete and checked before it appears under its name."""

import os
from collections.abc import Callable
from pathlib import Path

from onnx import ModelProto, TensorProto
from onnx.external_data_helper import set_external_data

from flashrib.runtime.artifacts.files import staging_folder, take_place
from flashrib.runtime.artifacts.onnx_weights import weights_hash
from flashrib.runtime.errors import FlashribError

EXTERNAL_ABOVE = 2_000_000_000  # bytes of weights; a protobuf message ends at 2^31 - 1
_INLINE = 1024  # smaller tensors stay in the message: shapes among them, which shape inference reads
_ALIGNMENT = 4096  # of a tensor in the data file, so that it can be mapped into memory


def save_onnx(
    model: ModelProto,
    path: str | Path,
    *,
    check: Callable[[Path], None] | None = None,
    external_above: int = EXTERNAL_ABOVE,
) -> None:
    """Write a model atomically; weights beyond `external_above` bytes go to `<path>.data` beside it.

    Args:
        model: as it shall be saved; stays as it is.
        path: of the ONNX file; an older file, or what a link points to, is replaced once the new one is complete, and keeps its mode.
        check: is called with a complete file before it takes its name; what it raises leaves the old state in place.
        external_above: bytes of weights that still go into the file itself.

    Raises:
        FlashribError: the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        with staging_folder(target.parent) as folder:
            staged = folder / target.name
            data = staged.with_name(f"{target.name}.data")
            if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > external_above:
                model = _with_external_data(model, data)
            staged.write_bytes(model.SerializeToString(deterministic=True))
            if check is not None:
                check(staged)
            if data.exists():
                take_place(data, target.with_name(data.name))
            take_place(staged, target)
    except OSError as error:
        raise FlashribError(f"{path}: cannot be written: {error.strerror or error}") from error


def hash_of_initializers(model: ModelProto) -> str:
    """Return what `ModelInfo.weights_sha256` holds for a graph that is complete and has its values in itself."""
    return weights_hash(tensor.SerializeToString(deterministic=True) for tensor in model.graph.initializer)


def _with_external_data(model: ModelProto, data: Path) -> ModelProto:
    """Return a copy of `model` whose large initialisers lie in the file `data`."""
    tensors = list(model.graph.initializer)
    light = ModelProto()
    light.CopyFrom(model)
    with data.open("wb") as file:
        for target, tensor in zip(light.graph.initializer, tensors, strict=True):
            if len(tensor.raw_data) < _INLINE:
                continue
            file.write(bytes(-file.tell() % _ALIGNMENT))
            set_external_data(target, data.name, offset=file.tell(), length=len(tensor.raw_data))
            file.write(tensor.raw_data)
            target.ClearField("raw_data")
            target.data_location = TensorProto.EXTERNAL
    return light
