"""What an ONNX file says about itself, read in no time, without onnx and without ONNX Runtime: metadata, opset, external data."""

import collections
import dataclasses
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.protobuf import fields, varint
from flashrib.runtime.errors import ModelError, SilentModelError

OPSETS = range(18, 24)
"""Opsets of files that flashrib works with: it exports 18, 20 and 23, between which no operator of our graphs changed its meaning."""

# Fields of ModelProto, OperatorSetIdProto, GraphProto, TensorProto and StringStringEntryProto in onnx.proto.
_GRAPH, _OPSET_IMPORT, _METADATA_PROPS = 7, 8, 14
_DOMAIN, _VERSION = 1, 2
_INITIALIZER = 5
_DIMS, _DATA_TYPE, _EXTERNAL_DATA = 1, 2, 13
_KEY, _VALUE = 1, 2


# Of TensorProto.DataType, with the bytes of a value; from high to low.
_PRECISIONS = {
    1: ("fp32", 4),
    10: ("fp16", 2),
    16: ("bf16", 2),
    2: ("int8", 1),
    3: ("int8", 1),
    17: ("fp8", 1),
    18: ("fp8", 1),
    19: ("fp8", 1),
    20: ("fp8", 1),
}
_ORDER = ("fp32", "fp16", "bf16", "int8", "fp8")


def describe_onnx(path: str | os.PathLike[str], stand_in: Callable[[], ModelInfo] | None = None) -> ModelInfo:
    """Read what an ONNX file says about itself.

    Works as well for files that ONNX Runtime could not run on this machine.

    Args:
        path: of the file.
        stand_in: gives the description of a file that says nothing at all about itself; None: there is none.

    Raises:
        SilentModelError: it says nothing about itself, and there is no `stand_in`.
        ModelError: no such file, no ONNX file, a truncated one, one that flashrib did not make, or of an opset that it does not know.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: there is no such file")
    try:
        properties, opset = _metadata_and_opset(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        raise ModelError(
            f"{path}: not an ONNX file, or a truncated one ({os.path.getsize(path)} bytes): export or copy it again"
        ) from error
    try:
        info = ModelInfo.from_properties(properties, os.fspath(path))
    except SilentModelError:
        if stand_in is None:
            raise
        info = dataclasses.replace(stand_in(), opset=opset)
    if opset not in OPSETS:
        raise ModelError(
            f"{path}: is of ONNX opset {opset}, but flashrib makes and takes files of opset {OPSETS[0]} to {OPSETS[-1]}: export"
            " it again"
        )
    return dataclasses.replace(info, precision=_stored_precision(path, info.precision))


def external_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files that hold weights of an ONNX file that `describe_onnx` takes, in order of their names.

    They lie beside the ONNX file. Where that is a link, as in the cache of Hugging Face, they may lie beside it as links as well, or
    beside the file that it points to; see `openable`.

    Raises:
        ModelError: one lies outside the folder of the ONNX file, is missing, or is too short.
    """
    folder, real = openable(path).parent, Path(path).resolve().parent
    files = []
    for name, size in sorted(_needed(path).items()):
        data = (folder / name).resolve()
        if not name or Path(name).name != name or data.parent not in (folder.resolve(), real):
            raise ModelError(f"{path}: its external data {name!r} lies outside its folder: export the model again")
        if not data.is_file():
            raise ModelError(f"{path}: its external data {name!r} is missing: copy it beside the ONNX file")
        if data.stat().st_size < size:
            raise ModelError(
                f"{path}: its external data {name!r} is truncated ({data.stat().st_size} bytes of {size}): copy it again"
            )
        files.append(data)
    return files


def _stored_precision(path: str | os.PathLike[str], stated: str) -> str:
    """Return the precision of the weights where it is a lower one than the file states: another program has converted them.

    What most bytes of the initialisers are decides; a quantized file keeps some in floating point, and any file has integers.
    """
    sizes: collections.Counter[str] = collections.Counter()
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for start, stop in _initializers(data):
                kind, count = 0, 1
                for number, a, b in fields(data, start, stop):
                    if number == _DATA_TYPE:
                        kind, _ = varint(data, a)
                    elif number == _DIMS and b - a < 10:
                        count *= varint(data, a)[0]
                precision, size = _PRECISIONS.get(kind, ("", 0))
                sizes[precision] += count * size
    except (OSError, ValueError, IndexError):
        return stated  # whoever reads the weights says what is wrong with them
    del sizes[""]
    seen = max(sizes, key=lambda precision: sizes[precision], default=stated)
    order = list(_ORDER)
    return seen if stated in order and order.index(seen) > order.index(stated) else stated


def openable(path: str | os.PathLike[str]) -> Path:
    """Return the name under which an ONNX file is opened so that its external data lie beside it: `path`, or what it links to.

    Raises:
        ModelError: its weights are damaged.
    """
    found, names = Path(path), _needed(path)
    while not all((found.parent / name).exists() for name in names) and found.is_symlink():
        found = found.parent / os.readlink(found)
    return found


def _needed(path: str | os.PathLike[str]) -> dict[str, int]:
    try:
        return _external_data(path)
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: its weights are damaged ({error}): export or copy it again") from error


def _metadata_and_opset(path: str | os.PathLike[str]) -> tuple[dict[str, str], int]:
    """Return the metadata properties and the opset of ONNX's own operators, 0 where the file names none.

    ValueError or IndexError where the file is not a whole ModelProto with a graph.
    """
    properties: dict[str, str] = {}
    opset = 0
    has_graph = False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for number, start, stop in fields(data, 0, len(data)):
            has_graph = has_graph or number == _GRAPH
            if number == _METADATA_PROPS:
                key, value = _entry(data, start, stop)
                properties[key] = value
            elif number == _OPSET_IMPORT:
                parts = {key: (begin, end) for key, begin, end in fields(data, start, stop)}
                domain = data[slice(*parts.get(_DOMAIN, (0, 0)))].decode()
                if domain in ("", "ai.onnx") and _VERSION in parts:
                    opset, _ = varint(data, parts[_VERSION][0])
    if not has_graph:
        raise ValueError("no graph")
    return properties, opset


def _external_data(path: str | os.PathLike[str]) -> dict[str, int]:
    """Return the locations of the initialisers' external data, and the bytes that each must have at least."""
    needed: dict[str, int] = {}
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start, stop in _initializers(data):
            parts = [_entry(data, a, b) for key, a, b in fields(data, start, stop) if key == _EXTERNAL_DATA]
            if parts:
                about = dict(parts)
                name = about.get("location", "")
                end = int(about.get("offset") or 0) + int(about.get("length") or 0)
                needed[name] = max(needed.get(name, 0), end)
    return needed


def _initializers(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield where the initialisers of a ModelProto lie."""
    for number, start, stop in fields(data, 0, len(data)):
        if number == _GRAPH:
            yield from ((a, b) for key, a, b in fields(data, start, stop) if key == _INITIALIZER)


def _entry(data: mmap.mmap, start: int, stop: int) -> tuple[str, str]:
    """Return key and value of a StringStringEntryProto."""
    entry = {key: data[begin:end].decode() for key, begin, end in fields(data, start, stop)}
    return entry.get(_KEY, ""), entry.get(_VALUE, "")
