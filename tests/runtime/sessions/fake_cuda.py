"""A stand-in for what `GpuWorker` uses of torch.cuda, on the CPU: streams that do not run ahead, and graphs that really replay."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class FakeEvent:
    def __init__(self, blocking: bool = False) -> None:
        self.recorded = False

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded


class FakeStream:
    def wait_event(self, event: FakeEvent) -> None:
        assert event.recorded


class FakeGraph(TorchDispatchMode):
    """Keeps the operators that run under it and runs them again on the same memory.

    Unlike a real graph it also runs them while recording, so that nothing has to be poisoned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            if isinstance(result, torch.Tensor) and again.data_ptr() != result.data_ptr():
                result.copy_(again)


class FakeCuda:
    """What was asked of the stand-in, and what it answers.

    Attributes:
        free: bytes of memory.
        refused: what recording a graph fails with, if it shall fail.
        ends_well: PyTorch knows that the recording which failed is over.
        graphs: all that were recorded.
        recording: pools that memory is taken from; in a recording nothing is given back.
        released: pools whose recordings broke off.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 1 << 30
        self.peak = 0
        self.refused: Exception | None = None
        self.ends_well = False
        self.graphs: list[FakeGraph] = []
        self.recording: set[tuple[int, int]] = set()
        self.released: list[tuple[int, int]] = []
        nothing = {name: lambda *_: None for name in ("synchronize", "empty_cache", "reset_peak_memory_stats")}
        replaced: dict[str, Any] = nothing | {
            "Stream": FakeStream,
            "Event": FakeEvent,
            "CUDAGraph": FakeGraph,
            "graph": self.graph,
            "device": contextlib.nullcontext,
            "stream": contextlib.nullcontext,
            "graph_pool_handle": lambda: (0, 0),
            "memory_allocated": lambda *_: 0,
            "memory_reserved": lambda *_: 0,
            "max_memory_allocated": lambda *_: self.peak,
            "mem_get_info": lambda *_: (self.free, self.free),
        }
        for name, value in replaced.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_recording, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda _, pool: self.released.append(pool), raising=False)

    def end_recording(self, device: int, pool: tuple[int, int]) -> None:
        if pool not in self.recording:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recording.remove(pool)

    @contextlib.contextmanager
    def graph(self, graph: FakeGraph, pool: Any, stream: FakeStream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        self.recording.add(pool)
        if self.refused is not None:
            if self.ends_well:
                self.end_recording(0, pool)
            raise self.refused
        with graph:
            yield
        self.end_recording(0, pool)
        self.graphs.append(graph)
