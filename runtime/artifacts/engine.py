"""The manifest `<engine>.json` beside an engine: what the engine is, for whom it was built, and the hash that proves it.

An engine is machine code that TensorRT loads without looking twice, so nothing is loaded that the manifest does not vouch for.
`flashrib.export.engine` writes manifests, `TensorRTSession` checks them; everything here runs without TensorRT and without a GPU.
"""

import dataclasses
import os
from typing import Any, ClassVar

from flashrib.runtime import schema
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.manifest import Manifest, checked, read_manifest_file, read_proven
from flashrib.runtime.errors import SessionError
from flashrib.runtime.nvidia.cuda import Gpu
from flashrib.runtime.nvidia.flavours import FLAVOURS, version_numbers

FORMAT = 1
Side = tuple[int, int]

# TensorRT-RTX engines that name no target run on these (measured: 9.0 is refused).
RTX_PORTABLE = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))


@dataclasses.dataclass(frozen=True)
class EngineManifest(Manifest):
    """What an engine says about itself.

    Attributes:
        flavour: "rtx" or "tensorrt".
        version: version of TensorRT that built it.
        targets: "sm86" ...: compute capabilities that it was built for; "ampere+": 8.0 and later; empty: portable (rtx).
        version_compatible: True where later versions of TensorRT may load it.
        shapes: smallest, preferred and largest (H, W) in input pixels; all equal: it takes this size only.
        batch: pictures of one run.
        io: dtype of input and output, "float32" or "float16".
        precision: what it computes in, "fp16", "bf16", ...
        scratch_bytes: memory that it needs on the GPU beside its weights, in bytes.
        layers: number of layers of the engine, 0 where the builder did not say.
        build_seconds: time that the build took.
        onnx_sha256: hash of the ONNX file that it was built from.
        engine_sha256: hash of the engine file.
        model: what the ONNX file said about itself.
    """

    FORMAT: ClassVar[int] = FORMAT

    flavour: str
    version: str
    targets: tuple[str, ...]
    version_compatible: bool
    shapes: tuple[Side, Side, Side]
    batch: int
    io: str
    precision: str
    scratch_bytes: int
    layers: int
    build_seconds: float
    onnx_sha256: str
    engine_sha256: str
    model: ModelInfo

    @property
    def fixed_size(self) -> Side | None:
        """(H, W) where the engine takes one size only, otherwise None."""
        smallest, _, largest = self.shapes
        return largest if smallest == largest else None

    @property
    def info(self) -> ModelInfo:
        """What the engine is as a model: what it was made from, in the shapes and types that it was built for."""
        fixed = self.fixed_size
        return dataclasses.replace(
            self.model,
            fixed_size=fixed,
            minimum=self.model.minimum if fixed else max(self.model.minimum, *self.shapes[0]),
            batch=self.batch,
            io="fp16" if self.io == "float16" else "fp32",
            precision=self.precision,
        )


def read_manifest(engine: str | os.PathLike[str]) -> EngineManifest:
    """Read the manifest of an engine.

    Raises:
        ModelError: there is none, or it is malformed.
    """
    return read_manifest_file(engine, "engine", "flashrib build", FORMAT, _checked)


def read_engine(engine: str | os.PathLike[str], manifest: EngineManifest) -> bytes:
    """Return the content of an engine file, proven to be what its manifest describes.

    Raises:
        ModelError: it cannot be read, or was changed after it was built.
    """
    return read_proven(engine, "engine", manifest.engine_sha256)


def check_version(engine: str | os.PathLike[str], manifest: EngineManifest, installed: str) -> None:
    """Refuse an engine of another version of TensorRT.

    Raises:
        SessionError: the installed version cannot load it.
    """
    if installed == manifest.version:
        return
    if manifest.version_compatible and version_numbers(installed) >= version_numbers(manifest.version):
        return
    product = FLAVOURS[manifest.flavour].product
    raise SessionError(
        f"{engine}: was built by {product} {manifest.version}, but {installed} is installed: build it again, or install"
        f" {manifest.version}"
    )


def check_gpu(engine: str | os.PathLike[str], manifest: EngineManifest, gpu: Gpu) -> None:
    """Refuse an engine that was built for other GPUs.

    Raises:
        SessionError: the GPU cannot run it.
    """
    if manifest.flavour == "tensorrt" and not manifest.targets:
        return  # the builder knew no GPU; TensorRT itself refuses what does not fit
    if "ampere+" in manifest.targets:
        fits, wanted = gpu.capability >= (8, 0), "8.0 or later"
    else:
        known = tuple(_capability(target) for target in manifest.targets) or RTX_PORTABLE
        fits, wanted = gpu.capability in known, " or ".join(f"{major}.{minor}" for major, minor in known)
    if not fits:
        major, minor = gpu.capability
        raise SessionError(
            f"{engine}: was built for GPUs of compute capability {wanted}, but this one, {gpu.name}, has {major}.{minor}:"
            " build it for this GPU"
        )


def _capability(target: str) -> tuple[int, int]:
    number = int(target.removeprefix("sm"))
    return number // 10, number % 10


_SIZE = schema.several(schema.whole(1, 1_000_000), 2, 2)

SCHEMA = {
    "flavour": schema.one_of(*FLAVOURS),
    "version": schema.text(r"[0-9]+(\.[0-9]+)*[0-9A-Za-z.+-]*", "a version"),
    "targets": schema.several(schema.text(r"ampere\+|sm[0-9]{2,3}", "ampere+, or a compute capability such as sm89")),
    "version_compatible": schema.BOOLEAN,
    "shapes": schema.several(_SIZE, 3, 3),
    "batch": schema.whole(1, 1024),
    "io": schema.one_of("float32", "float16"),
    "precision": schema.one_of("fp32", "fp16", "bf16", "int8", "fp8"),
    "scratch_bytes": schema.whole(0, 2**50),
    "layers": schema.whole(0, 10**7),
    "build_seconds": schema.number(0, 10**7),
    "onnx_sha256": schema.SHA256,
    "engine_sha256": schema.SHA256,
}
"""What each field of a manifest may be."""


def _checked(**values: Any) -> EngineManifest:
    return EngineManifest(**checked(values, SCHEMA))
