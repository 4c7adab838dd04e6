"""What a session is to be, as a value: it can be kept, compared, and sent to another process or machine, which then opens it."""

import os
from dataclasses import dataclass

from flashrib.runtime.sessions.protocol import Session


@dataclass(frozen=True)
class SessionSpec:
    """A session that is not open yet. `flashrib.runtime.sessions.table` says which kinds take which of the options.

    Attributes:
        model: an ONNX file, an engine or a package made by flashrib, or a checkpoint; or the name of a bundled model, "x2", "x4" or
            "photo"; None: "x2".
        kind: name of a row of `flashrib.runtime.sessions.table.SESSIONS`, or "auto": ONNX Runtime for ONNX files, PyTorch for
            checkpoints, TensorRT of the flavour that its manifest names for engines, AOTInductor for packages; for the bundled model
            PyTorch where it can use a GPU, and ONNX Runtime elsewhere.
        arch: what the model must be; needed for checkpoints that do not say it themselves, and for ONNX files whose metadata another
            program has removed.
        scale: magnification that the model must have; needed as `arch` is.
        device: "auto", "cpu", "cuda" (the first GPU), "cuda:1", or several GPUs, "cuda:0,cuda:1"; ONNX Runtime runs on one of
            them, TensorRT on the first GPU.
        threads: threads on the CPU, >= 1; None leaves them to the session.
        cuda_graph: launch an engine as a CUDA graph; see `TensorRTSession`. Other sessions on GPUs do so without being asked.
        precision: of a checkpoint. None: the plain session, in float32 with PyTorch's own operators, which is what others are
            compared with. "fp32", "fp16", "bf16": on GPUs the fast session in that precision. "auto": on GPUs the fast session in
            fp16, on the CPU the plain one.
        provider: execution provider of ONNX Runtime, a key of `flashrib.runtime.sessions.providers.PROVIDERS`; None: CUDA where `device`
            names a GPU or "auto" finds one and the package for it, otherwise the CPU.
        provider_options: options of the provider, (key, value) each.
        damaged: take an ONNX file though its weights are not those that it was written with, to find out where it is damaged.
        key: where in a checkpoint the network is, for files in which it is not found, such as "state_dict.generator".
    """

    model: str | os.PathLike[str] | None = None
    kind: str = "auto"
    arch: str | None = None
    scale: int | None = None
    device: str = "auto"
    threads: int | None = None
    cuda_graph: bool = False
    precision: str | None = None
    provider: str | None = None
    provider_options: tuple[tuple[str, str], ...] = ()
    damaged: bool = False
    key: str | None = None

    @property
    def may_use_gpus(self) -> bool:
        """Nothing in it asks for the CPU."""
        return self.device != "cpu" and self.threads is None and self.provider is None and not self.provider_options

    def open(self) -> Session:
        """Load the model into the session that fits it.

        Raises:
            UsageError: no such kind, or one that cannot run this file; an option that the kind does not take; a device or a number
                of threads that cannot be had.
            ModelError: the file is missing, damaged, not made by flashrib, or contradicts `arch` or `scale`.
            MissingPackageError, SessionError: the session cannot start.
        """
        from flashrib.runtime.sessions.table import open_spec

        return open_spec(self)
