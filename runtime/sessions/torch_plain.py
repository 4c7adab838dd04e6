"""The plain PyTorch session: a checkpoint in its deployment form, with PyTorch's own operators, in float32, on the CPU or a GPU.

It is what results are compared with; the fast session for GPUs is `flashrib.runtime.sessions.torch_gpu.session`.
"""

import contextlib
import importlib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flashrib.runtime.artifacts.files import sha256_of
from flashrib.runtime.artifacts.info import ModelInfo, info_of
from flashrib.runtime.errors import CheckpointError, MissingPackageError, OutOfMemoryError, SessionError, UsageError
from flashrib.runtime.sessions.base import SessionBase, given_to
from flashrib.runtime.sessions.devices import choose_devices
from flashrib.runtime.sessions.protocol import Batch

if TYPE_CHECKING:
    from flashrib.model.network import Network

DEVICES = ("auto", "cpu", "cuda")  # to train on

# What PyTorch's allocators say on the CPU of Linux, macOS and Windows; on the GPU they raise torch.OutOfMemoryError.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")


class TorchSession(SessionBase):
    """Runs a checkpoint with PyTorch in float32; follows `flashrib.runtime.sessions.protocol.Session`.

    Attributes:
        device: "cpu", or "cuda:0", ...
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        arch: str | None = None,
        scale: int | None = None,
        device: str = "auto",
        threads: int | None = None,
        key: str | None = None,
    ) -> None:
        """Load the checkpoint `path` and fold it.

        Args:
            path: a .pth, .pt or .safetensors file.
            arch: one of `flashrib.model.PRESETS`, where neither the file nor its name says it; see `load_model`.
            scale: magnification that the checkpoint was trained for, where its shapes do not tell it.
            device: one device; see `flashrib.runtime.sessions.devices.choose_devices`.
            threads: threads that compute one run on the CPU, >= 1; a setting of PyTorch for the whole process. None leaves it.
            key: where in the file the network is; see `flashrib.model.state_dict.read_checkpoint`.

        Raises:
            MissingPackageError: torch or safetensors is not installed.
            UsageError: `threads` is less than 1, there is no such `device`, `arch` or `scale`.
            CheckpointError: see `flashrib.model.load_model`; or the checkpoint was trained for another scale.
            OutOfMemoryError: the weights do not fit.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}, but it must be at least 1")
        require_torch("a PyTorch session")
        import torch

        from flashrib.model.fold import fold

        devices = choose_devices(device)
        if len(devices) > 1:
            raise UsageError(f"device {device!r}: this session runs on one device; several GPUs want a --precision")
        self.device = devices[0]
        if threads is not None:
            torch.set_num_threads(threads)
        network = load_trained(path, arch, scale, key)
        self._network: Any = None
        with one_line_errors(f"{path}: PyTorch cannot load these weights on {self.device!r}"):
            folded: Any = fold(network).to(self.device)
            # Whatever comes out of the layers is channels last, so that weights of this format spare copies.
            self._network = folded.to(memory_format=torch.channels_last)
        self.info = info_of_checkpoint(network, path)

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        """Upscale `batch` (B, 3, H, W), RGB, nominally 0..1, float32 -> (B, 3, scale*H, scale*W) float32, not clamped.

        Args:
            batch: pictures.
            noise: see `Session.run`.

        Raises:
            OutOfMemoryError: the batch does not fit; a smaller one may.
            SessionError: the session is closed, or PyTorch failed.
        """
        if self._network is None:
            raise SessionError("the PyTorch session is closed: make a new one")
        import torch

        shape = "x".join(str(side) for side in batch.shape)
        inputs = given_to(self.info, batch, noise)
        try:
            with (
                one_line_errors(f"PyTorch failed on a batch of {shape} on {self.device!r}"),
                torch.inference_mode(),
                full_float32(self.device),
            ):
                tensors = (torch.from_numpy(x).to(self.device) for x in inputs)
                output = self._network(*tensors).cpu().numpy()
        except OutOfMemoryError:
            self._free_gpu()  # otherwise what the failed run had reserved is missing for a smaller one
            raise
        result: Batch = np.ascontiguousarray(output)
        return result

    def close(self) -> None:
        """Free the network; calling it again does nothing."""
        if self._network is not None:
            self._network = None
            self._free_gpu()

    def _free_gpu(self) -> None:
        if self.device != "cpu":
            import torch

            torch.cuda.empty_cache()


def require_torch(purpose: str, extra: str = "torch") -> None:
    """Import torch and safetensors, which the folder `model` needs.

    Args:
        purpose: what they are needed for, for the error message.
        extra: the extra of flashrib that brings them.

    Raises:
        MissingPackageError: one of them is not installed.
        SessionError: one of them is installed and does not load.
    """
    for package in ("torch", "safetensors"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise SessionError(f"{purpose} needs the package {package!r}, which does not load: {error}") from error
            raise MissingPackageError(package, purpose, extra) from error
        except (ImportError, OSError) as error:
            reason = " ".join(str(error).split())
            raise SessionError(f"{purpose} needs the package {package!r}, which does not load: {reason}") from error


def load_trained(
    path: str | os.PathLike[str], arch: str | None, scale: int | None, key: str | None = None
) -> "Network":
    """Load a checkpoint for upscaling; see `TorchSession`."""
    from flashrib.model.checkpoint import describe_checkpoint, load_model

    path = Path(path)
    if scale is not None and (trained := describe_checkpoint(path, arch, key).get("scale")) not in (None, scale):
        # load_model would resize the head, which starts a fine-tuning and is nothing to look at.
        raise CheckpointError(f"{path}: trained for x{trained}, so it cannot upscale x{scale}: leave --scale out")
    return load_model(path, arch, scale, key=key)


def info_of_checkpoint(network: "Network", path: str | os.PathLike[str], precision: str = "fp32") -> ModelInfo:
    """Describe the network that was loaded from `path` and computes in `precision`.

    Raises:
        ModelError: the file is gone meanwhile.
    """
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return info_of(network.config, parameters, precision=precision, source_sha256=sha256_of(path))


@contextlib.contextmanager
def one_line_errors(what: str) -> Iterator[None]:
    """Turn the errors of PyTorch, in the middle of `what`, into OutOfMemoryError and SessionError, in one line.

    Where memory was short, what the failed functions held is free afterwards, though the error remembers them.
    """
    import torch

    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        lines = str(error).strip().splitlines() or [type(error).__name__]  # after the first one: hints and C++ frames
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
            text in str(error) for text in _OUT_OF_MEMORY
        ):
            # Python 3.12 keeps errors that pass through contexts until its next collection of cycles, tensors and all.
            traceback.clear_frames(error.__traceback__)
            raise OutOfMemoryError(f"{what}, for lack of memory: {lines[0]}") from error
        raise SessionError(f"{what}: {lines[0]}") from error


@contextlib.contextmanager
def full_float32(device: str) -> Iterator[None]:
    """Compute float32 as float32 on the GPU; PyTorch rounds the inputs of convolutions to TF32 (10 bits) otherwise."""
    if device == "cpu":
        yield
        return
    import torch

    backends: Any = torch.backends
    convolution, product = backends.cudnn.conv, backends.cuda.matmul
    before = convolution.fp32_precision, product.fp32_precision
    convolution.fp32_precision = product.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolution.fp32_precision, product.fp32_precision = before
