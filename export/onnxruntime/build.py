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

from onnx import ModelProto, TensorProto

from flashrib.export.onnxruntime import external
from flashrib.export.onnxruntime.check import check_bodies, run_on_gpu
from flashrib.export.onnxruntime.float_nodes import with_float_nodes
from flashrib.export.onnxruntime.graph import with_library
from flashrib.export.onnxruntime.library import build_library, table_of
from flashrib.export.onnxruntime.options import CURRENT, PRECISIONS, LibraryOptions
from flashrib.export.save import hash_of_initializers, save_onnx
from flashrib.model.network import Network
from flashrib.runtime.artifacts.files import sha256_of, write_whole
from flashrib.runtime.artifacts.info import PREFIX
from flashrib.runtime.artifacts.kinds import CHECKPOINT, recognise_file
from flashrib.runtime.artifacts.library import LibraryManifest
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.artifacts.onnx_file import describe_onnx, external_files
from flashrib.runtime.artifacts.onnx_loops import check_loops
from flashrib.runtime.artifacts.onnx_weights import check_weights
from flashrib.runtime.errors import FlashribError, MissingPackageError, ModelError, UsageError
from flashrib.runtime.nvidia.cuda import find_gpu

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
        graph = _given(model, output, options, arch, scale, key)
    graph, operators = with_library(graph, capabilities)
    with_float_nodes(graph)
    _state_weights(graph)
    table, images = table_of(operators, capabilities)
    beside = output.parent if network is None and external_files(model) else None  # where large files need no copy
    with tempfile.TemporaryDirectory(prefix=".flashrib-", dir=beside) as folder:
        staged = Path(folder) / output.name
        library = staged.with_suffix(SUFFIX)
        build_library(table, images, library)
        if network is None:
            external.place(model, staged)
        save_onnx(graph, staged)
        check_bodies(staged, network, model)
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
        manifest = dataclasses.replace(manifest, checked_on=run_on_gpu(staged, manifest))
        external.place(staged, output)
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


def _given(
    model: Path, output: Path, options: LibraryOptions, arch: str | None, scale: int | None, key: str | None
) -> ModelProto:
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
    check_weights(model, info)
    check_loops(model)
    return external.load_model(model, output)


def _state_weights(graph: ModelProto) -> None:
    """State the hash of the initialisers, to which an operator may have added some; where weights lie beside the file, none is."""
    stated = next((entry for entry in graph.metadata_props if entry.key == f"{PREFIX}weights_sha256"), None)
    if stated is None:
        return
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in graph.graph.initializer):
        graph.metadata_props.remove(stated)
    else:
        stated.value = hash_of_initializers(graph)
