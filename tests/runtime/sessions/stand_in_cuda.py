"""ONNX Runtime's CUDA session without a GPU."""

import dataclasses
from collections.abc import Sequence

import pytest

from flashrib.runtime.nvidia.cuda import Gpu
from flashrib.runtime.sessions import onnxruntime_cuda
from flashrib.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession
from flashrib.runtime.sessions.protocol import Batch
from flashrib.runtime.sessions.providers import PROVIDERS


def compute_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put buffers and kernels of the CPU under the names of the GPU's: all but CUDA itself is what runs on a GPU."""
    cpu = dataclasses.replace(PROVIDERS["cpu"], name="cuda")
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDERS", {"cuda": cpu})
    monkeypatch.setattr(onnxruntime_cuda, "_DEVICE", "cpu")
    monkeypatch.setattr(onnxruntime_cuda, "find_gpu", lambda: Gpu("GPU", (9, 0)))
    monkeypatch.setattr(onnxruntime_cuda, "check_placement", lambda *arguments: None)
    launch = OnnxRuntimeCudaSession._launch

    def copied(session: OnnxRuntimeCudaSession, given: Sequence[Batch]) -> Batch:
        return launch(session, given).copy()  # as from a GPU: of the CPU ONNX Runtime gives the buffer itself

    monkeypatch.setattr(OnnxRuntimeCudaSession, "_launch", copied)
