"""The fast PyTorch session: a checkpoint in the form made for GPUs, on one or several of them."""

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flashrib.runtime.artifacts.info import ModelMetadata
from flashrib.runtime.errors import SessionError, UsageError
from flashrib.runtime.sessions.protocol import Batch
from flashrib.runtime.sessions.torch_gpu.worker import GpuWorker
from flashrib.runtime.sessions.torch_plain import load_trained, one_line_errors, require_torch

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "fp16", "bf16")

MEMORY_SHARE = 0.4
"""Part of a GPU's free memory that a tile may take at its peak: recorded shapes and the allocator's reserve want theirs."""

MOST_PIXELS = 2048 * 2048
"""Input pixels of the largest tile that is chosen by default; beyond, the halo hardly counts."""

_PROBE_SIDE = 256  # of the run that measures the memory per pixel


class GpuSession:
    """Runs a network on GPUs; follows `flashrib.runtime.sessions.protocol.TileSession`.

    Attributes:
        devices: "cuda:0", ...
        precision: "fp32", "fp16" or "bf16": what the network computes in. Input and output of `run` are float32 all the same.
        metadata: what the file said about itself, if it was a package.
    """

    def __init__(
        self,
        workers: Sequence[GpuWorker],
        *,
        scale: int,
        multiple: int,
        minimum: int,
        whole_picture: bool,
        precision: str,
        fixed_size: tuple[int, int] | None = None,
        metadata: ModelMetadata | None = None,
    ) -> None:
        """Take workers that all run the same network; the rest is as in `flashrib.runtime.sessions.protocol.Session`."""
        self.workers = workers
        self.devices = tuple(worker.device for worker in workers)
        self.scale, self.multiple, self.minimum = scale, multiple, minimum
        self.whole_picture, self.fixed_size, self.precision = whole_picture, fixed_size, precision
        self.metadata = metadata
        self.channels = 3
        self.dtype = "float32"

    def run(self, batch: Batch) -> Batch:
        """Upscale `batch` (B, 3, H, W), RGB, nominally 0..1, float32 -> (B, 3, scale*H, scale*W) float32, on the first GPU.

        Raises:
            OutOfMemoryError: the batch does not fit; a smaller one may.
            SessionError: the session is closed, or PyTorch failed.
        """
        if not self.workers:
            raise SessionError("the PyTorch session is closed: make a new one")
        return self.workers[0].run(batch)

    def most_pixels(self) -> int:
        """See `flashrib.runtime.sessions.protocol.TileSession`: what fits into `MEMORY_SHARE` of the free memory, at most `MOST_PIXELS`.

        The memory of a run grows with its pixels in proportion; it is measured on a small one.

        Raises:
            OutOfMemoryError, SessionError: not even that runs.
        """
        side = max(_PROBE_SIDE // self.multiple, 1) * self.multiple
        fitting = [MEMORY_SHARE * worker.free_memory() / worker.bytes_per_pixel(side) for worker in self.workers]
        return min(MOST_PIXELS, *map(int, fitting))

    def close(self) -> None:
        """Free the network on all GPUs; calling it again does nothing."""
        workers, self.workers = self.workers, ()
        for worker in workers:
            worker.close()


def open_gpu_session(
    path: str | os.PathLike[str],
    devices: Sequence[str],
    precision: str = "fp16",
    arch: str | None = None,
    scale: int | None = None,
) -> GpuSession:
    """Load a checkpoint onto GPUs.

    Args:
        path: a .pth, .pt or .safetensors file.
        devices: "cuda:0", ..., each with a copy of the network; see `flashrib.runtime.sessions.devices.choose_devices`.
        precision: one of `PRECISIONS`.
        arch: see `TorchSession`.
        scale: see `TorchSession`.

    Raises:
        UsageError: no such precision, `arch` or `scale`.
        MissingPackageError, CheckpointError: see `TorchSession`.
        OutOfMemoryError: the weights do not fit.
    """
    require_torch("a PyTorch session")
    from flashrib.model.gpu import gpu_network

    dtype = torch_dtype(precision)
    network = load_trained(path, arch, scale)
    config = network.config
    fast = gpu_network(network, dtype)
    workers = []
    for device in devices:
        with one_line_errors(f"{path}: PyTorch cannot load these weights on {device!r}"):
            workers.append(GpuWorker(copy.deepcopy(fast).to(device), device, dtype, config.scale))
    return GpuSession(
        workers,
        scale=config.scale,
        multiple=config.alignment,
        minimum=config.minimum,
        whole_picture=config.whole_picture,
        precision=precision,
    )


def torch_dtype(precision: str) -> "torch.dtype":
    """Return the dtype of one of `PRECISIONS`.

    Raises:
        UsageError: it is none.
    """
    import torch

    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
