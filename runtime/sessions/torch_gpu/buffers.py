"""The memory that a tile in work needs on both sides of the bus."""

from typing import TYPE_CHECKING, Any

import numpy as np

from flashrib.runtime.sessions.protocol import Pixels

if TYPE_CHECKING:
    import torch


class Slot:
    """Buffers of one tile in work: on the current GPU, and pinned in the host's memory, which alone is copied while the CPU goes on.

    They grow on demand and are kept. Every method puts its work on the current stream and returns at once, except `write`.

    Attributes:
        loaded: event after which the tile is on the GPU.
        computed: event after which its result is in the buffer.
        where: what the tile is called in messages.
    """

    def __init__(self, device: str) -> None:
        cuda = _cuda()
        self._device = device
        self.loaded, self.computed = cuda.Event(), cuda.Event()
        self._done = cuda.Event(blocking=True)  # waiting takes no core from those who read and write pictures
        self._buffers: dict[str, torch.Tensor] = {}
        self._host: torch.Tensor
        self._gpu: torch.Tensor
        self.where = ""

    def load(self, pixels: Pixels) -> "torch.Tensor":
        """Copy a tile to the GPU; `pixels` may change as soon as this returns."""
        dtype = _torch_dtype(pixels.dtype)
        host = self._buffer("host in", pixels.shape, dtype)
        np.copyto(host.numpy().view(pixels.dtype), pixels)
        gpu = self._buffer("gpu in", pixels.shape, dtype)
        gpu.copy_(host, non_blocking=True)
        self.loaded.record()
        return gpu

    def keep(self, result: "torch.Tensor", finite: "torch.Tensor") -> None:
        """Copy the part of a result that is wanted, and whether all of it is finite, out of the way of the next tile."""
        self._gpu = self._buffer("gpu out", tuple(result.shape), result.dtype)
        self._host = self._buffer("host out", tuple(result.shape), result.dtype)
        self._gpu.copy_(result)
        self._buffer("gpu finite", finite.shape, finite.dtype).copy_(finite)
        self.computed.record()

    def unload(self) -> None:
        """Copy that to the host."""
        self._host.copy_(self._gpu, non_blocking=True)
        finite = self._buffers["gpu finite"]
        self._buffer("host finite", (1,), finite.dtype).copy_(finite, non_blocking=True)
        self._done.record()

    def write(self, target: Pixels) -> bool:
        """Wait, write the result into `target` and say whether it is finite."""
        self._done.synchronize()
        np.copyto(target, self._host.numpy().view(target.dtype))
        return bool(self._buffers["host finite"][0])

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: "torch.dtype") -> "torch.Tensor":
        """Return a buffer as a tensor; one that is too small is replaced."""
        import torch

        size = int(np.prod(shape)) * dtype.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            self._buffers.pop(name, None)
            host = name.startswith("host")
            pinned = host and self._device != "cpu"
            buffer = torch.empty(size, dtype=torch.uint8, device="cpu" if host else self._device, pin_memory=pinned)
            self._buffers[name] = buffer
        return buffer[:size].view(dtype).view(shape)


def _cuda() -> Any:
    """torch.cuda, whose classes have no types."""
    import torch

    return torch.cuda


def _torch_dtype(dtype: "np.dtype[np.generic]") -> "torch.dtype":
    import torch

    return {"uint8": torch.uint8, "uint16": torch.int16, "float32": torch.float32}[dtype.name]
