"""The hash of an ONNX file's weights, which tells a damaged file from a whole one; computed without onnx.

Other programs may convert a file and keep what it says about itself. Then its initialisers have other names, types or shapes, and the
hash, which is no longer about them, is not looked at.
"""

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.onnx_file import openable
from flashrib.runtime.artifacts.protobuf import Buffer, fields
from flashrib.runtime.errors import DamagedWeightsError, ModelError

# Fields of ModelProto, GraphProto, TensorProto and StringStringEntryProto in onnx.proto.
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _TYPE, _NAME, _DOC, _EXTERNAL, _LOCATION = 1, 2, 8, 12, 13, 14
_KEY, _VALUE = 1, 2

_BLOCK = 1 << 20


def weights_hash(tensors: Iterable[bytes]) -> str:
    """Return the hash of initialisers that are not in a file yet.

    Args:
        tensors: each a serialised TensorProto with its values in itself.
    """
    return _hash(((tensor, 0, len(tensor)) for tensor in tensors), None)


def check_weights(path: str | os.PathLike[str], info: ModelInfo) -> None:
    """Refuse an ONNX file whose weights are not those that it was written with; one that does not state its hash is taken.

    Args:
        path: of a file that `describe_onnx` and `external_files` take.
        info: what it says about itself.

    Raises:
        DamagedWeightsError: they are not.
        ModelError: they cannot be read.
    """
    if not info.weights_sha256:
        return
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            seen = _hash(_initializers(data), openable(path).parent)
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(f"{path}: its weights are damaged ({error}): export or copy it again") from error
    if seen != info.weights_sha256 and seen.partition(":")[0] == info.weights_sha256.partition(":")[0]:
        raise DamagedWeightsError(
            f"{path}: its weights are not those that it was written with: it is damaged: export or copy it again"
        )


def _initializers(data: mmap.mmap) -> Iterator[tuple[Buffer, int, int]]:
    for number, start, stop in fields(data, 0, len(data)):
        if number == _GRAPH:
            yield from ((data, a, b) for key, a, b in fields(data, start, stop) if key == _INITIALIZER)


def _hash(tensors: Iterable[tuple[Buffer, int, int]], folder: Path | None) -> str:
    layout, values = hashlib.sha256(), hashlib.sha256()
    for data, start, stop in tensors:
        external: dict[str, str] = {}
        for number, a, b in fields(data, start, stop):
            if number in (_DIMS, _TYPE, _NAME):
                layout.update(b"%d:%d:" % (number, b - a))
                layout.update(data[a:b])
            elif number == _EXTERNAL:
                entry = {key: data[c:d].decode() for key, c, d in fields(data, a, b)}
                external[entry.get(_KEY, "")] = entry.get(_VALUE, "")
            elif number not in (_DOC, _LOCATION):  # the values, in whatever type they are
                for first in range(a, b, _BLOCK):
                    values.update(data[first : min(first + _BLOCK, b)])
        if external and folder is not None:
            _update(values, folder / external["location"], int(external.get("offset") or 0), external.get("length"))
        layout.update(b";")
    return f"{layout.hexdigest()}:{values.hexdigest()}"


def _update(values: "hashlib._Hash", path: Path, offset: int, length: str | None) -> None:
    with path.open("rb") as file:
        file.seek(offset)
        left = int(length) if length else path.stat().st_size - offset
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            values.update(block)
            left -= len(block)
