"""The manifest `<package>.json` beside a package of AOTInductor: what it is, what runs it, and the hash that proves it.

A package (`.pt2`) holds machine code that PyTorch loads without looking twice, so nothing is loaded that the manifest does not vouch
for. `flashrib.export.package.build` writes manifests; everything here runs without PyTorch.
"""

import dataclasses
import os
from typing import Any, ClassVar

from flashrib.runtime import schema
from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.manifest import Manifest, checked, read_manifest_file, read_proven
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
            f"{package}: was built by PyTorch {manifest.torch}, but {installed} is installed: build it again, or install"
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


SCHEMA = {
    "flavour": schema.one_of("aoti"),
    "torch": schema.text(r"[0-9]+(\.[0-9]+)*[0-9A-Za-z.+-]*", "a version"),
    "device": schema.one_of("cuda", "cpu"),
    "capability": schema.several(schema.whole(0, 99), 2, 2),
    "size": schema.several(schema.whole(1, 1_000_000), 2, 2),
    "build_seconds": schema.number(0, 10**7),
    "package_sha256": schema.SHA256,
}
"""What each field of a manifest may be."""


def _checked(**values: Any) -> PackageManifest:
    manifest = PackageManifest(**checked(values, SCHEMA))
    schema.check({"precision": manifest.model.precision}, {"precision": schema.one_of("fp32", "fp16", "bf16")})
    return manifest
