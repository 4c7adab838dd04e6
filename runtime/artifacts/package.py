"""The manifest `<package>.json` beside a package of AOTInductor: what it is, what runs it, and the hash that proves it.

A package (`.pt2`) holds machine code that PyTorch loads without looking twice, so nothing is loaded that the manifest does not vouch
for. `flashrib.export.package.build` writes manifests; everything here runs without PyTorch.
"""

import dataclasses
import os
from typing import Any, ClassVar

from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.manifest import Manifest, read_manifest_file, read_proven
from flashrib.runtime.errors import SessionError

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class PackageManifest(Manifest):
    """What a package says about itself.

    Attributes:
        flavour: "aoti".
        torch: version of PyTorch that built it, and that alone runs it: "2.11.0+cu130".
        device: "cuda" or "cpu".
        capability: compute capability (major, minor) of the GPU that it was built for; (0, 0) for the CPU.
        size: (H, W) in input pixels, the only one that it takes.
        build_seconds: time that the build took.
        package_sha256: hash of the package.
        model: what it was made from, as an ONNX file says it; `precision` is what it computes in.
    """

    FORMAT: ClassVar[int] = FORMAT

    flavour: str
    torch: str
    device: str
    capability: tuple[int, int]
    size: Side
    build_seconds: float
    package_sha256: str
    model: ModelInfo

    @property
    def info(self) -> ModelInfo:
        """What the package is as a model: what it was made from, in the size that it was built for."""
        return dataclasses.replace(self.model, fixed_size=self.size)


def read_package_manifest(package: str | os.PathLike[str]) -> PackageManifest:
    """Read the manifest of a package.

    Raises:
        ModelError: there is none, or it is malformed.
    """
    return read_manifest_file(package, "package", "flashrib build --flavour aoti", FORMAT, _checked)


def read_package(package: str | os.PathLike[str], manifest: PackageManifest) -> bytes:
    """Return the content of a package, proven to be what its manifest describes.

    Raises:
        ModelError: it cannot be read, or was changed after it was built.
    """
    return read_proven(package, "package", manifest.package_sha256)


def check_torch(package: str | os.PathLike[str], manifest: PackageManifest, installed: str) -> None:
    """Refuse a package of another version of PyTorch, whose binary interface may be another.

    Raises:
        SessionError: it is.
    """
    if installed != manifest.torch:
        raise SessionError(
            f"{package}: was built by PyTorch {manifest.torch}, but {installed} is installed: build it anew, or install"
            f" {manifest.torch}"
        )


def check_capability(
    package: str | os.PathLike[str], manifest: PackageManifest, gpu: str, capability: tuple[int, int]
) -> None:
    """Refuse a package that was built for other GPUs.

    Args:
        package: the file.
        manifest: its manifest.
        gpu: name of the GPU that shall run it.
        capability: its compute capability.

    Raises:
        SessionError: it is.
    """
    if capability != manifest.capability:
        built, seen = (f"{major}.{minor}" for major, minor in (manifest.capability, capability))
        raise SessionError(
            f"{package}: was built for GPUs of compute capability {built}, but this one, {gpu}, has {seen}: build it on this GPU"
        )


def _checked(**values: Any) -> PackageManifest:
    """Return the manifest with these values; ValueError where a field that decisions hang on holds nonsense."""
    manifest = PackageManifest(**values)
    if manifest.flavour != "aoti":
        raise ValueError(f"the flavour is {manifest.flavour!r}")
    if manifest.device not in ("cuda", "cpu"):
        raise ValueError(f"the device is {manifest.device!r}")
    if len(manifest.size) != 2 or not all(isinstance(side, int) and side > 0 for side in manifest.size):
        raise ValueError(f"the size is {manifest.size}")
    if len(manifest.capability) != 2 or not all(isinstance(number, int) for number in manifest.capability):
        raise ValueError(f"the capability is {manifest.capability}")
    if manifest.model.precision not in ("fp32", "fp16", "bf16"):
        raise ValueError(f"the precision is {manifest.model.precision!r}")
    return manifest
