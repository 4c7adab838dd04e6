"""Loops of an ONNX file that would never end; found without onnx.

The bodies of operators hold loops over tiles, whose number is an input that the graph computes. A Loop without one runs until its own
condition says so, and a file from elsewhere need not say so.
"""

import mmap
import os
from collections.abc import Iterator

from flashrib.runtime.artifacts.protobuf import Buffer, fields
from flashrib.runtime.errors import ModelError

MOST_TURNS = 1_000_000
"""Turns of a loop whose number stands in the file."""

# Fields of ModelProto, GraphProto, FunctionProto, NodeProto, AttributeProto and TensorProto in onnx.proto.
_GRAPH, _FUNCTIONS = 7, 25
_GRAPH_NODE, _INITIALIZER = 1, 5
_FUNCTION_NODE = 7
_INPUT, _OP_TYPE, _ATTRIBUTE = 1, 4, 5
_SUBGRAPH, _SUBGRAPHS = 6, 11
_NAME, _RAW_DATA = 8, 9


def check_loops(path: str | os.PathLike[str]) -> None:
    """Refuse an ONNX file that `describe_onnx` takes where a Loop has no number of turns, or more than `MOST_TURNS`.

    Raises:
        ModelError: it has such a Loop, or its graph is damaged.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(b"Loop") < 0:  # as in most files, which then need not be read node by node
                return
            counts = _constants(data)
            for turns in _loops(data):
                if not turns or not 0 <= counts.get(turns, 0) <= MOST_TURNS:
                    raise ModelError(
                        f"{path}: has a Loop without an end that is known before it runs, which no export of flashrib has"
                    )
    except (OSError, ValueError, IndexError, RecursionError) as error:
        raise ModelError(f"{path}: its graph is damaged ({error}): export or copy it again") from error


def _constants(data: Buffer) -> dict[bytes, int]:
    """Initialisers of the graph that are one number of 64 bits."""
    found: dict[bytes, int] = {}
    for number, start, stop in fields(data, 0, len(data)):
        for key, a, b in fields(data, start, stop) if number == _GRAPH else ():
            if key == _INITIALIZER:
                parts = {
                    part: data[c:d] for part, c, d in fields(data, a, b) if part in (_NAME, _RAW_DATA) and d - c < 500
                }
                if len(parts.get(_RAW_DATA, b"")) == 8:
                    found[parts.get(_NAME, b"")] = int.from_bytes(parts[_RAW_DATA], "little", signed=True)
    return found


def _loops(data: Buffer) -> Iterator[bytes]:
    """The name of the number of turns of each Loop, at any depth; empty where it has none."""
    for number, start, stop in fields(data, 0, len(data)):
        if number == _GRAPH:
            yield from _loops_among(data, start, stop, _GRAPH_NODE)
        elif number == _FUNCTIONS:
            yield from _loops_among(data, start, stop, _FUNCTION_NODE)


def _loops_among(data: Buffer, start: int, stop: int, node: int) -> Iterator[bytes]:
    for number, first, last in fields(data, start, stop):
        if number != node:
            continue
        inputs: list[bytes] = []
        operator = b""
        for key, a, b in fields(data, first, last):
            if key == _INPUT:
                inputs.append(data[a:b])
            elif key == _OP_TYPE:
                operator = data[a:b]
            elif key == _ATTRIBUTE:
                for part, c, d in fields(data, a, b):
                    if part in (_SUBGRAPH, _SUBGRAPHS):
                        yield from _loops_among(data, c, d, _GRAPH_NODE)
        if operator == b"Loop":
            yield inputs[0] if inputs else b""
