"""ONNX file or checkpoint -> ONNX file with a library of custom operators beside it, and a manifest.

From an ONNX file the library holds the attention operators. From a checkpoint it also holds the fused passes between them: that is the
network that PyTorch sessions run on GPUs (`flashrib.model.gpu`), without PyTorch.
"""

import dataclasses
import importlib
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from flashrib.export.check import check_file
from flashrib.export.onnxruntime.graph import with_library
from flashrib.export.onnxruntime.library import build_library, table_of
from flashrib.export.onnxruntime.options import CURRENT, PRECISIONS, LibraryOptions
from flashrib.export.save import save_onnx
from flashrib.model.network import Network
from flashrib.runtime.artifacts.files import sha256_of, write_whole
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.kinds import CHECKPOINT, recognise_file
from flashrib.runtime.artifacts.library import LibraryManifest, check_targets
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.errors import FlashribError, MissingPackageError, ModelError, SessionError, UsageError
from flashrib.runtime.nvidia.cuda import find_gpu
from flashrib.runtime.quality.parity_bounds import LEAST_RMS, bound_of
from flashrib.runtime.quality.rms import rms_ratio
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from flashrib.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession
from flashrib.runtime.sessions.providers import PROVIDERS, has_provider

SUFFIX = ".so"


def build_with_library(
    model: Path,
    output: Path,
    options: LibraryOptions,
    arch: str | None = None,
    scale: int | None = None,
    key: str | None = None,
) -> LibraryManifest:
    """Build `output` and its library, of the same name with the ending .so; each appears whole, once both are checked.

    Args:
        model: an ONNX file made by flashrib, or a checkpoint.
        output: the ONNX file to write.
        options: what it is built for.
        arch: see `TorchSession`; for checkpoints.
        scale: see `TorchSession`; for checkpoints.
        key: see `TorchSession`; for checkpoints.

    Raises:
        ModelError, CheckpointError: the model cannot be read, has no operator of flashrib, or its results are not within the bound.
        UsageError: an option that the model does not allow.
        MissingPackageError: Triton is not installed.
        SessionError: no C++ compiler, no GPU for the target "current", or ONNX Runtime cannot run what was built.
        FlashribError: a kernel cannot be compiled, or a file cannot be written.
    """
    if output.suffix != ".onnx":
        raise UsageError(f"-o {output}: an ONNX file's name ends in .onnx")
    if not output.parent.is_dir():
        raise FlashribError(f"{output}: the folder {output.parent} does not exist: make it first")
    if output.exists() and model.exists() and output.samefile(model):
        raise UsageError(f"-o {output}: is the model itself, which runs without a library too: choose another name")
    capabilities = _capabilities(options.targets)
    started = time.perf_counter()
    network: Network | None = None
    if recognise_file(model) is CHECKPOINT:
        from flashrib.export.onnxruntime.trace import traced_with_passes
        from flashrib.runtime.sessions.torch_plain import load_trained

        network = load_trained(model, arch, scale, key).with_noise(options.noise)
        graph = traced_with_passes(network, options.precision or "fp16", options.size, sha256_of(model))
    else:
        graph = _given(model, options, arch, scale, key)
    graph, operators = with_library(graph)
    table, images = table_of(operators, capabilities)
    with tempfile.TemporaryDirectory(prefix="flashrib-") as folder:
        staged = Path(folder) / output.name
        library = staged.with_suffix(SUFFIX)
        build_library(table, images, library)
        save_onnx(graph, staged, check=lambda path: _check(path, network, model))
        manifest = LibraryManifest(
            flavour="onnxruntime",
            targets=tuple(f"sm{capability}" for capability in capabilities),
            library=library.name,
            library_sha256=sha256_of(library),
            onnx_sha256=sha256_of(staged),
            operators=len(operators),
            passes=network is not None,
            triton=version("triton"),
            checked_on="",
            build_seconds=round(time.perf_counter() - started, 1),
            model=describe_onnx(staged),
        )
        write_whole(manifest_path(staged), manifest.to_json().encode())
        manifest = dataclasses.replace(manifest, checked_on=_run_on_gpu(staged, manifest))
        for path in (library, staged):
            write_whole(output.with_name(path.name), path.read_bytes())
    write_whole(manifest_path(output), manifest.to_json().encode())
    return manifest


def _capabilities(targets: tuple[str, ...]) -> list[int]:
    try:
        importlib.import_module("triton")
    except ModuleNotFoundError as error:
        raise MissingPackageError("triton", "compiling the library's kernels", "gpu") from error
    if targets == (CURRENT,):
        major, minor = find_gpu().capability
        return [10 * major + minor]
    return sorted({int(target.removeprefix("sm")) for target in targets})


def _given(model: Path, options: LibraryOptions, arch: str | None, scale: int | None, key: str | None) -> ModelProto:
    """The ONNX file that the library is for."""
    info = describe_onnx(model)
    noise = None if options.noise == "input" else options.noise
    given = {
        "precision": options.precision,
        "arch": arch,
        "scale": scale,
        "key": key,
        "opt": options.size,
        "noise-seed or --no-noise": noise,
    }
    for name, value in given.items():
        if value is not None:
            raise UsageError(
                f"--{name}: {model} is an ONNX file and has its own; leave it out, or build from the checkpoint"
            )
    if info.precision not in PRECISIONS:
        raise ModelError(
            f"{model}: computes in {info.precision}, for which there are no kernels: export it with --precision fp16 or bf16"
        )
    return onnx.load(model)


def _check(path: Path, network: Network | None, model: Path) -> None:
    """Run the file by its bodies, and compare it with the network in float32, or with the ONNX file that it was made from."""
    if network is not None:
        check_file(path, network)
        return
    info = describe_onnx(path)
    if info.precision == "bf16":  # ONNX Runtime has no kernels for it on the CPU
        onnx.checker.check_model(str(path), full_check=True)
        return
    picture = _picture(info)
    with OnnxRuntimeSession(model) as one, OnnxRuntimeSession(path) as other:
        _compare(one.run(picture), other.run(picture), info, f"{path.name} by its bodies")


def _run_on_gpu(path: Path, manifest: LibraryManifest) -> str:
    """Run file and library on this machine's GPU if that is possible, compare them with the bodies, and return the GPU's name."""
    try:
        gpu = find_gpu()
        check_targets(path, manifest, gpu.name, gpu.capability)
    except SessionError:
        return ""  # no GPU, or the library is for others
    if not has_provider(PROVIDERS["cuda"]):
        return ""
    picture = _picture(manifest.model)
    with OnnxRuntimeCudaSession(path) as session:
        found = session.run(picture)
    if manifest.model.precision != "bf16":
        with OnnxRuntimeSession(path) as session:
            _compare(session.run(picture), found, manifest.model, f"the library on {gpu.name}")
    elif not np.isfinite(found).all():
        raise ModelError(f"the library on {gpu.name} gives NaN or infinity")
    return gpu.name


def _picture(info: ModelInfo) -> NDArray[np.float32]:
    size = info.fixed_size or (info.minimum | 1, (info.minimum + 2) | 1)
    return np.random.default_rng(0).random((info.batch, info.channels, *size), dtype=np.float32)


def _compare(wanted: NDArray[np.float32], found: NDArray[np.float32], info: ModelInfo, what: str) -> None:
    ratio, bound = rms_ratio(wanted, found, LEAST_RMS), bound_of(info.precision).rms_ratio
    if not (np.isfinite(found).all() and (bound is None or ratio <= bound)):
        raise ModelError(f"{what} computes something else (RMS ratio {ratio:.3g}, bound {bound}): nothing was written")
