"""Sessions for packages of AOTInductor: the network compiled ahead of time, run from the file, without tracing and without its code."""

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.artifacts.package import (
    PackageManifest,
    check_capability,
    check_torch,
    read_package,
    read_package_manifest,
)
from flashrib.runtime.errors import SessionError, UsageError
from flashrib.runtime.sessions.base import SessionBase, given_to, noise_multiple
from flashrib.runtime.sessions.devices import check_device, choose_devices
from flashrib.runtime.sessions.protocol import Batch
from flashrib.runtime.sessions.torch_gpu.session import GpuSession, torch_dtype
from flashrib.runtime.sessions.torch_gpu.worker import GpuWorker
from flashrib.runtime.sessions.torch_plain import one_line_errors, require_torch

if TYPE_CHECKING:
    import torch

Network = Callable[..., "torch.Tensor"]


class CpuPackageSession(SessionBase):
    """Runs a package that was built for the CPU; follows `flashrib.runtime.sessions.protocol.Session`."""

    def __init__(self, network: Network, manifest: PackageManifest) -> None:
        """Take the loaded package."""
        self.info = manifest.info
        self._network: Network | None = network

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        """Upscale `batch` (B, 3, H, W), RGB, nominally 0..1, float32 -> (B, 3, scale*H, scale*W) float32, not clamped.

        Raises:
            OutOfMemoryError: the batch does not fit.
            SessionError: the session is closed, the size is not that of the package, or PyTorch failed.
        """
        if self._network is None:
            raise SessionError("the PyTorch session is closed: make a new one")
        import torch

        with one_line_errors("PyTorch failed on a batch on 'cpu'"), torch.inference_mode():
            inputs = (torch.from_numpy(given) for given in given_to(self.info, batch, noise))
            result: Batch = np.ascontiguousarray(self._network(*inputs).numpy())
        return result

    def close(self) -> None:
        """Free the network; calling it again does nothing."""
        self._network = None


def open_package_session(path: str | os.PathLike[str], device: str = "auto") -> GpuSession | CpuPackageSession:
    """Load the package `path`, whose manifest lies beside it.

    Args:
        path: of the package.
        device: see `flashrib.runtime.sessions.devices.choose_devices`.

    Raises:
        ModelError: the package or its manifest is missing, damaged or changed.
        MissingPackageError: torch is not installed.
        UsageError: no such device here, or one of another kind than the package is for.
        SessionError: the package is of another version of PyTorch or for another GPU; PyTorch refused it.
        OutOfMemoryError: it does not fit.
    """
    manifest = read_package_manifest(path)
    content = read_package(path, manifest)
    require_torch("a package of AOTInductor")
    import torch

    check_torch(path, manifest, torch.__version__)
    if manifest.device == "cpu":
        if check_device(device) not in ("auto", "cpu"):
            raise UsageError(f"--device {device}: {path} was built for the CPU; leave --device out")
        return CpuPackageSession(_load(path, content, manifest.size, "cpu"), manifest)
    devices = choose_devices(device)
    if devices == ("cpu",):
        raise UsageError(
            f"{path}: was built for a CUDA GPU, but it would run on the CPU here: build it with --target cpu"
        )
    for name in devices:
        check_capability(path, manifest, torch.cuda.get_device_name(name), torch.cuda.get_device_capability(name))
    about = manifest.info
    dtype, multiple = torch_dtype(about.precision), noise_multiple(about)
    workers = [
        GpuWorker(_load(path, content, manifest.size, name), name, dtype, about.scale, multiple) for name in devices
    ]
    return GpuSession(workers, about)


def _load(path: str | os.PathLike[str], content: bytes, size: Side, device: str) -> Network:
    """Load the content of a package onto a device.

    What was hashed is what is loaded, not what may lie at `path` by now.
    """
    from torch._inductor import aoti_load_package

    index = -1 if device == "cpu" else int(device.removeprefix("cuda:"))
    if device != "cpu":
        import flashrib.model.gpu.convolution  # noqa: F401  # the operator that the package calls
    with one_line_errors(f"{path}: PyTorch cannot load this package on {device!r}"):
        # Without locks of its own the package can be recorded as a CUDA graph; a worker uses it from one thread at a time.
        loaded: Any = aoti_load_package(io.BytesIO(content), run_single_threaded=True, device_index=index)
    return _one_size(loaded, size)


def _one_size(network: Network, size: Side) -> Network:
    """Keep pictures of another size from compiled code, which would read beyond them."""
    import torch

    def run(batch: "torch.Tensor", *noise: "torch.Tensor") -> "torch.Tensor":
        height, width = batch.shape[2:]
        if (height, width) != size:
            raise SessionError(f"the package takes pictures of {size[0]}x{size[1]}, not {height}x{width}")
        if len(batch) == 1:
            return network(batch, *noise)
        return torch.cat([network(*(given[None] for given in inputs)) for inputs in zip(batch, *noise, strict=True)])

    return run
