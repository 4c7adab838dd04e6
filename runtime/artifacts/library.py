"""The manifest `<file>.onnx.json` beside an ONNX file with a library of custom operators: what both are, for which GPUs, and their hashes.

A library holds machine code, so a session loads none that the manifest does not vouch for. `flashrib.export.onnxruntime.build` writes
manifests. The ONNX file also runs without its library, by the bodies of its operators.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any, ClassVar

from flashrib.runtime.artifacts.files import sha256_of
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.manifest import Manifest, manifest_path, read_manifest_file
from flashrib.runtime.errors import ModelError, SessionError

FORMAT = 1
BUILD = "flashrib build --flavour onnxruntime"


@dataclasses.dataclass(frozen=True)
class LibraryManifest(Manifest):
    """What an ONNX file with a library says about the two.

    Attributes:
        flavour: "onnxruntime".
        targets: "sm80", ...: compute capabilities that its kernels were compiled for.
        library: name of the library, which lies beside the ONNX file.
        library_sha256: its hash.
        onnx_sha256: hash of the ONNX file.
        operators: how many operators the library holds.
        passes: True where the passes between attention layers are operators of the library too, False where attention alone is.
        triton: version of Triton that compiled the kernels.
        checked_on: name of the GPU that ran file and library after the build; "": none has, only the bodies were run.
        build_seconds: time that the build took.
        model: the ONNX file, as it says it itself.
    """

    FORMAT: ClassVar[int] = FORMAT

    flavour: str
    targets: tuple[str, ...]
    library: str
    library_sha256: str
    onnx_sha256: str
    operators: int
    passes: bool
    triton: str
    checked_on: str
    build_seconds: float
    model: ModelInfo


def has_library(model: str | os.PathLike[str]) -> bool:
    """Say whether an ONNX file came with a library: whether a manifest lies beside it."""
    return manifest_path(model).is_file()


def read_library_manifest(model: str | os.PathLike[str]) -> LibraryManifest:
    """Read the manifest of an ONNX file with a library.

    Raises:
        ModelError: there is none, or it is malformed.
    """
    return read_manifest_file(model, "library", BUILD, FORMAT, _checked)


def proven_library(model: str | os.PathLike[str], manifest: LibraryManifest) -> Path:
    """Return the library of an ONNX file, once it and the file are proven to be what the manifest describes.

    Raises:
        ModelError: one is missing, or was changed after the build.
    """
    library = Path(model).resolve().with_name(manifest.library)
    if not library.is_file():
        raise ModelError(
            f"{model}: its library {manifest.library} is missing: copy it along, or build it again with {BUILD}"
        )
    for path, what, wanted in (
        (library, "library", manifest.library_sha256),
        (Path(model), "file", manifest.onnx_sha256),
    ):
        seen = sha256_of(path)
        if seen != wanted:
            raise ModelError(
                f"{path}: is not the {what} that {manifest_path(model).name} describes (sha256 {seen[:12]}..., not {wanted[:12]}...):"
                f" it is damaged or was replaced; build it again with {BUILD}"
            )
    return library


def check_targets(
    model: str | os.PathLike[str], manifest: LibraryManifest, gpu: str, capability: tuple[int, int]
) -> None:
    """Refuse a library whose kernels do not run on a GPU: machine code runs on later minor versions of its major one, and of sm80 to
    sm89 the library also has code that the driver translates for any later GPU.

    Args:
        model: the ONNX file.
        manifest: its manifest.
        gpu: name of the GPU.
        capability: its compute capability (major, minor).

    Raises:
        SessionError: they do not.
    """
    this = 10 * capability[0] + capability[1]
    known = [int(target.removeprefix("sm")) for target in manifest.targets]
    if not any(c <= this and (c // 10 == this // 10 or c // 10 == 8) for c in known):
        raise SessionError(
            f"{model}: its library is for GPUs of {', '.join(manifest.targets)}, but this one, {gpu}, is sm{this}: build it with"
            f" --target sm{this}"
        )


def _checked(**values: Any) -> LibraryManifest:
    """Return the manifest with these values; ValueError where a field that decisions hang on holds nonsense."""
    manifest = LibraryManifest(**values)
    if manifest.flavour != "onnxruntime":
        raise ValueError(f"the flavour is {manifest.flavour!r}")
    if not manifest.targets or not all(t.startswith("sm") and t[2:].isdecimal() for t in manifest.targets):
        raise ValueError(f"the targets are {manifest.targets}")
    if Path(manifest.library).name != manifest.library or not manifest.library:
        raise ValueError(f"the library {manifest.library!r} lies elsewhere")
    return manifest
