"""What the attention nodes of an ONNX file say about its windows; read without onnx."""

import mmap
import os
from collections.abc import Iterator

from flashrib.runtime.artifacts.protobuf import Buffer, fields, varint

# Fields of ModelProto, GraphProto, NodeProto and AttributeProto in onnx.proto.
_GRAPH, _NODE = 7, 1
_OP_TYPE, _ATTRIBUTE, _DOMAIN = 4, 5, 7
_NAME, _INTS = 1, 8


def attention_windows(path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """Return (rows, columns) of the window of each attention node of flashrib's, in the order of the graph.

    Empty where attention is in standard operators, or the graph cannot be read; whoever opens the file says so.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return [window for start, stop in _nodes(data) if (window := _window(data, start, stop))]
    except (OSError, ValueError, IndexError):
        return []


def _nodes(data: Buffer) -> Iterator[tuple[int, int]]:
    for number, start, stop in fields(data, 0, len(data)):
        if number == _GRAPH:
            yield from ((a, b) for key, a, b in fields(data, start, stop) if key == _NODE)


def _window(data: Buffer, start: int, stop: int) -> tuple[int, int] | None:
    parts = [(key, a, b) for key, a, b in fields(data, start, stop) if key in (_OP_TYPE, _ATTRIBUTE, _DOMAIN)]
    names = {key: data[a:b] for key, a, b in parts if key != _ATTRIBUTE}
    if names != {_DOMAIN: b"flashrib", _OP_TYPE: b"WindowAttention"}:
        return None
    for key, first, last in parts:
        values: list[int] = []
        name = b""
        for number, a, b in fields(data, first, last) if key == _ATTRIBUTE else ():
            if number == _NAME:
                name = data[a:b]
            while number == _INTS and a < b:  # one number, or all of them
                value, a = varint(data, a)
                values.append(value)
        if name == b"window" and len(values) == 2:
            return values[0], values[1]
    return None
