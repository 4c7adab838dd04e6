"""What an ONNX file says about itself, read in no time, without onnx and without ONNX Runtime: metadata, opset, external data."""

import mmap
import os
from pathlib import Path

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.protobuf import fields, varint
from flashrib.runtime.errors import ModelError

OPSETS = range(18, 24)
"""Opsets of files that flashrib works with: it exports 18, 20 and 23, between which no operator of our graphs changed its meaning."""

# Fields of ModelProto, OperatorSetIdProto, GraphProto, TensorProto and StringStringEntryProto in onnx.proto.
_GRAPH, _OPSET_IMPORT, _METADATA_PROPS = 7, 8, 14
_DOMAIN, _VERSION = 1, 2
_INITIALIZER = 5
_EXTERNAL_DATA = 13
_KEY, _VALUE = 1, 2


def describe_onnx(path: str | os.PathLike[str]) -> ModelInfo:
    """Read what an ONNX file says about itself.

    Works as well for files that ONNX Runtime could not run on this machine.

    Raises:
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
            f"{path}: not an ONNX file, or a truncated one ({os.path.getsize(path)} bytes): export or copy it anew"
        ) from error
    metadata = ModelInfo.from_properties(properties, os.fspath(path))
    if opset not in OPSETS:
        raise ModelError(
            f"{path}: is of ONNX opset {opset}, but flashrib makes and takes files of opset {OPSETS[0]} to {OPSETS[-1]}: export"
            " it anew"
        )
    return metadata


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
        graphs = ((start, stop) for number, start, stop in fields(data, 0, len(data)) if number == _GRAPH)
        graph_fields = (field for start, stop in graphs for field in fields(data, start, stop))
        for number, start, stop in graph_fields:
            if number != _INITIALIZER:
                continue
            parts = [_entry(data, a, b) for key, a, b in fields(data, start, stop) if key == _EXTERNAL_DATA]
            if parts:
                about = dict(parts)
                name = about.get("location", "")
                end = int(about.get("offset") or 0) + int(about.get("length") or 0)
                needed[name] = max(needed.get(name, 0), end)
    return needed


def _entry(data: mmap.mmap, start: int, stop: int) -> tuple[str, str]:
    """Return key and value of a StringStringEntryProto."""
    entry = {key: data[begin:end].decode() for key, begin, end in fields(data, start, stop)}
    return entry.get(_KEY, ""), entry.get(_VALUE, "")
