"""The fast PyTorch session: a checkpoint in the form made for GPUs, on one or several of them."""

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import SessionError, UsageError
from flashrib.runtime.sessions.base import SessionBase, noise_multiple, place_of
from flashrib.runtime.sessions.devices import choose_devices
from flashrib.runtime.sessions.protocol import Batch
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.sessions.torch_gpu.worker import GpuWorker
from flashrib.runtime.sessions.torch_plain import (
    TorchSession,
    info_of_checkpoint,
    load_trained,
    one_line_errors,
    require_torch,
)

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "fp16", "bf16")

MEMORY_SHARE = 0.4
"""Part of a GPU's free memory that a tile may take at its peak: recorded shapes and the allocator's reserve want theirs."""

MOST_PIXELS = 2048 * 2048
"""Input pixels of the largest tile that is chosen by default; beyond, the halo hardly counts."""

_PROBE_SIDE = 256  # of the run that measures the memory per pixel


class GpuSession(SessionBase):
    """Runs a network on GPUs; follows `flashrib.runtime.sessions.protocol.Session`.

    Attributes:
        devices: "cuda:0", ...
    """

    def __init__(
        self,
        workers: Sequence[GpuWorker],
        info: ModelInfo,
    ) -> None:
        """Take workers that all run the network that `info` describes."""
        self._workers = workers
        self.devices = tuple(worker.device for worker in workers)
        self.info = info
        self.place = place_of(" ".join(worker.name for worker in workers), info)

    @property
    def workers(self) -> Sequence[GpuWorker]:
        """One per GPU that has not failed; none once the session is closed."""
        return [worker for worker in self._workers if not worker.failed]

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        """Upscale `batch` (B, 3, H, W), RGB, nominally 0..1, float32 -> (B, 3, scale*H, scale*W) float32, on the first GPU.

        Args:
            batch: pictures.
            noise: see `Session.run`.

        Raises:
            OutOfMemoryError: the batch does not fit; a smaller one may.
            SessionError: the session is closed, or PyTorch failed.
        """
        return self._working()[0].run(batch, noise)

    def most_pixels(self) -> int:
        """See `flashrib.runtime.sessions.protocol.Session`: what fits into `MEMORY_SHARE` of the free memory, at most `MOST_PIXELS`.

        The memory of a run grows with its pixels in proportion; it is measured on a small one.

        Raises:
            OutOfMemoryError, SessionError: not even that runs.
        """
        working = self._working()
        side = max(_PROBE_SIDE // self.info.alignment, 1) * self.info.alignment
        fitting = [MEMORY_SHARE * worker.free_memory() / worker.bytes_per_pixel(side) for worker in working]
        return min(MOST_PIXELS, *map(int, fitting))

    def _working(self) -> Sequence[GpuWorker]:
        if not self._workers:
            raise SessionError("the PyTorch session is closed: make a new one")
        if not (working := self.workers):
            raise SessionError(
                f"{', '.join(self.devices)}: failed: begin again, and see nvidia-smi where that fails, too"
            )
        return working

    def close(self) -> None:
        """Free the network on all GPUs; calling it again does nothing."""
        workers, self._workers = self._workers, ()
        for worker in workers:
            worker.close()


def open_gpu_session(
    path: str | os.PathLike[str],
    devices: Sequence[str],
    precision: str = "fp16",
    arch: str | None = None,
    scale: int | None = None,
    key: str | None = None,
) -> GpuSession:
    """Load a checkpoint onto GPUs.

    Args:
        path: a .pth, .pt or .safetensors file.
        devices: "cuda:0", ..., each with a copy of the network; see `flashrib.runtime.sessions.devices.choose_devices`.
        precision: one of `PRECISIONS`.
        arch: see `TorchSession`.
        scale: see `TorchSession`.
        key: see `TorchSession`.

    Raises:
        UsageError: no such precision, `arch` or `scale`.
        MissingPackageError, CheckpointError: see `TorchSession`.
        OutOfMemoryError: the weights do not fit.
    """
    require_torch("a PyTorch session")
    from flashrib.model.gpu import gpu_network

    dtype = torch_dtype(precision)
    network = load_trained(path, arch, scale, key)
    fast = gpu_network(network, dtype)
    info = info_of_checkpoint(network, path, precision)
    multiple = noise_multiple(info)
    workers, alone = [], len(devices) == 1
    for device in devices:
        with one_line_errors(f"{path}: PyTorch cannot load these weights on {device!r}"):
            there = copy.deepcopy(fast).to(device)
            workers.append(GpuWorker(there, device, dtype, network.config.scale, multiple, alone))
    return GpuSession(workers, info)


def open_checkpoint(path: str | os.PathLike[str], spec: SessionSpec) -> GpuSession | TorchSession:
    """Load a checkpoint into the session that `spec` asks for: the fast one on GPUs if it names a precision, otherwise the plain one.

    Raises:
        UsageError: a precision that the CPU has not; see also `choose_devices`, `TorchSession` and `open_gpu_session`.
        MissingPackageError, CheckpointError, OutOfMemoryError: see `TorchSession`.
    """
    require_torch("a PyTorch session")
    if spec.precision is None or choose_devices(spec.device) == ("cpu",):
        if spec.precision in ("fp16", "bf16"):
            raise UsageError(f"--precision {spec.precision}: on the CPU PyTorch computes in fp32; it needs a CUDA GPU")
        return TorchSession(path, spec.arch, spec.scale, spec.device, spec.threads, spec.key)
    precision = "fp16" if spec.precision == "auto" else spec.precision
    return open_gpu_session(path, choose_devices(spec.device), precision, spec.arch, spec.scale, spec.key)


def torch_dtype(precision: str) -> "torch.dtype":
    """Return the dtype of one of `PRECISIONS`.

    Raises:
        UsageError: it is none.
    """
    import torch

    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
