"""Rewrites of plain files that are measured compute what the files do, on the CPU."""

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from benchmarks.onnxruntime_rewrites import REWRITES, rewritten
from flashrib.export.options import ExportOptions
from flashrib.export.to_onnx import export_graph
from tests.model.networks import small_network

SIZE = (32, 36)


@pytest.fixture(scope="module")
def plain() -> ModelProto:
    model, _ = export_graph(small_network(), ExportOptions(tile=SIZE))
    return model


def run(model: ModelProto) -> NDArray[np.float32]:
    picture = np.random.default_rng(0).random((1, 3, *SIZE), np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"input": picture})[0]
    return result


def kinds(model: ModelProto) -> list[str]:
    return sorted(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("names", [*([name] for name in REWRITES), list(REWRITES)], ids="+".join)
def test_same_result(plain: ModelProto, names: list[str]) -> None:
    changed = rewritten(plain, names)
    assert kinds(changed) != kinds(plain)
    found, wanted = run(changed), run(plain)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
