"""Weights that lie beside an ONNX file because they are too large for it: the file with a library has them beside it as well."""

import os
import shutil
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from flashrib.runtime.artifacts.files import replacing
from flashrib.runtime.artifacts.onnx_file import external_files, openable
from flashrib.runtime.errors import FlashribError, ModelError


def load_model(path: Path, output: Path) -> ModelProto:
    """Return an ONNX file; weights beside it stay there, and the model names them as files beside `output`.

    Raises:
        ModelError: it cannot be read, or a file beside it is missing.
    """
    external = external_files(path)
    try:
        model = onnx.load(openable(path), load_external_data=not external)
    except Exception as error:  # protobuf's and onnx's own
        raise ModelError(f"{path}: not an ONNX file, or a damaged one: {' '.join(str(error).split())}") from error
    names = {file.name: name for file, name in zip(external, _names(external, output), strict=True)}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            entry = next(entry for entry in tensor.external_data if entry.key == "location")
            entry.value = names[(path.parent / entry.value).resolve().name]
    return model


def place(model: Path, output: Path) -> None:
    """Put the weights that lie beside `model` beside `output`, as another name of the same data where the disk can do that.

    Raises:
        FlashribError: a file cannot be written.
    """
    external = external_files(model)
    for source, name in zip(external, _names(external, output), strict=True):
        target = output.with_name(name)
        if target.exists() and target.samefile(source):
            continue
        try:
            with replacing(target) as temporary:
                temporary.unlink()
                try:
                    os.link(source, temporary)
                except OSError:
                    shutil.copyfile(source, temporary)
        except OSError as error:
            raise FlashribError(f"{target}: cannot be written: {error.strerror or error}") from error


def _names(external: list[Path], output: Path) -> list[str]:
    """Names of the files beside `output`."""
    return [f"{output.name}.data" + (f".{number}" if number else "") for number in range(len(external))]
