"""Checkpoint -> package of AOTInductor: the network for GPUs, compiled ahead of time to machine code for one GPU and one size.

The package runs without tracing and without the code of the network: `flashrib.runtime.sessions.aoti`.
"""

import hashlib
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import nn

from flashrib.export.describe import describe_network
from flashrib.export.package.options import USUAL_SIDE, PackageOptions
from flashrib.export.package.run import run_alone
from flashrib.model.fold import fold
from flashrib.model.gpu import gpu_network
from flashrib.model.network import Network
from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.artifacts.files import sha256_of, write_whole
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.artifacts.package import PackageManifest
from flashrib.runtime.errors import FlashribError, SessionError, UsageError
from flashrib.runtime.quality.rms import rms_ratio
from flashrib.runtime.sessions.torch_gpu.session import torch_dtype
from flashrib.runtime.sessions.torch_plain import full_float32, load_trained, one_line_errors

DIFFERENCES = {"fp32": 1e-5, "fp16": 1e-2, "bf16": 5e-2}
"""Largest relative difference (RMS) between a package and the network it was compiled from: only the order of sums is another."""


def build_package(
    checkpoint: Path,
    output: Path,
    options: PackageOptions,
    arch: str | None = None,
    scale: int | None = None,
    key: str | None = None,
) -> PackageManifest:
    """Build the package `output` and write its manifest beside it, each whole or not at all.

    Args:
        checkpoint: a .pth, .pt or .safetensors file.
        output: where the package is written; an older one is replaced once the new one is complete.
        options: what it is built for.
        arch: see `TorchSession`.
        scale: see `TorchSession`.
        key: see `TorchSession`.

    Raises:
        CheckpointError, UsageError: the checkpoint or an option is invalid.
        SessionError: no GPU, or PyTorch cannot compile the network.
        FlashribError: a file cannot be written.
    """
    if not output.parent.is_dir():
        raise FlashribError(f"{output}: the folder {output.parent} does not exist: make it first")
    capability = (0, 0)
    if options.target == "current":
        if not torch.cuda.is_available():
            raise SessionError(
                "a package for a GPU is built on that GPU, and PyTorch sees none here: build it there, or with --target cpu"
            )
        capability = torch.cuda.get_device_capability()
    network = load_trained(checkpoint, arch, scale, key).with_noise(options.noise)
    config = network.config
    fixed: Side | None = config.facts().get("fixed_size")
    if fixed and options.size not in (None, fixed):
        raise UsageError(
            f"{config.name} takes {fixed[0]}x{fixed[1]} pixels only, which is its own size: leave --opt out"
        )
    size = options.size or fixed or (max(USUAL_SIDE // config.alignment, 1) * config.alignment,) * 2
    if min(size) < config.minimum:
        raise UsageError(
            f"{size[0]}x{size[1]}: a side is below {config.minimum} pixels, the least that {config.name} takes"
        )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="flashrib-") as folder:
        package = Path(folder) / "package.pt2"  # PyTorch wants this ending
        with one_line_errors(f"{checkpoint}: AOTInductor cannot compile {config.name} for {size[0]}x{size[1]} pixels"):
            _compile(network, package, size, options)
        content = package.read_bytes()
    manifest = PackageManifest(
        flavour="aoti",
        torch=torch.__version__,
        device="cpu" if options.target == "cpu" else "cuda",
        capability=capability,
        size=size,
        build_seconds=round(time.perf_counter() - started, 1),
        package_sha256=hashlib.sha256(content).hexdigest(),
        model=_metadata(network, options, sha256_of(checkpoint)),
    )
    write_whole(output, content)
    write_whole(manifest_path(output), manifest.to_json().encode())
    return manifest


def _compile(network: Network, package: Path, size: Side, options: PackageOptions) -> None:
    """Export the network for one size and compile it."""
    from torch._inductor import aoti_compile_and_package

    device = "cpu" if options.target == "cpu" else "cuda"
    dtype = torch_dtype(options.precision)
    module: nn.Module = fold(network) if device == "cpu" else gpu_network(network, dtype)
    sides = network.config.open_sizes(*size)
    examples = [torch.zeros(i.sizes(**sides), dtype=dtype, device=device) for i in network.config.inputs()]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch to its own developers
        program = torch.export.export(module.to(device), tuple(examples))
        aoti_compile_and_package(program, package_path=str(package))
        with full_float32(device):
            _compare(
                module, package, [torch.rand_like(example) for example in examples], DIFFERENCES[options.precision]
            )


def _compare(module: nn.Module, package: Path, inputs: list[torch.Tensor], bound: float) -> None:
    """Refuse a package that computes something else than the network it was compiled from, or that no new process can load."""
    wanted, found = module(*inputs), run_alone(package, inputs)
    error = rms_ratio(wanted.double().cpu().numpy(), found.double().cpu().numpy(), least=1e-6)
    if not error <= bound:
        raise SessionError(
            f"PyTorch {torch.__version__} compiled this network into something else (its output differs by {error:.1%}): nothing was"
            " written; report it, and use --session torch meanwhile"
        )


def _metadata(network: Network, options: PackageOptions, source_sha256: str) -> ModelInfo:
    return describe_network(
        network,
        precision=options.precision,
        attention="sdpa" if options.target == "cpu" else "triton",
        source_sha256=source_sha256,
    )
