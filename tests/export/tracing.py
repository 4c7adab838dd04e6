"""One trace by torch, most of an export, for the exports of one network in several precisions."""

from typing import Any

import pytest
from onnx import ModelProto

from flashrib.export import to_onnx


def trace_once(monkeypatch: pytest.MonkeyPatch) -> list[ModelProto]:
    """Let every later export of the test start from the trace of the first one.

    The exports must be of the same network, opset, batch and tile.

    Returns:
        The trace, once there is one.
    """
    traced: list[ModelProto] = []
    trace = to_onnx.trace

    def once(*arguments: Any, **options: Any) -> ModelProto:
        if not traced:
            traced.append(trace(*arguments, **options))
        copy = ModelProto()
        copy.CopyFrom(traced[0])
        return copy

    monkeypatch.setattr(to_onnx, "trace", once)
    return traced
