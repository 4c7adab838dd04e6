"""ONNX files whose metadata another program has removed: what the user says of them stands in, as far as the file bears it out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from flashrib.runtime.artifacts.info import ModelInfo, info_of
from flashrib.runtime.artifacts.onnx_attention import attention_windows
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.errors import ModelError, SilentModelError, UsageError
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.spec import SessionSpec


def onnx_info(path: Path, spec: SessionSpec) -> ModelInfo:
    """Return what an ONNX file says about itself, or where it says nothing, what `spec` says by `arch` and `scale`.

    Raises:
        UsageError: no such architecture or scale, or one that cannot stand in.
        ModelError: see `describe_onnx`; or the windows in the file are not those of the architecture.
    """
    return describe_onnx(path, stand_in(path, spec))


def stand_in(path: Path, spec: SessionSpec) -> Callable[[], ModelInfo] | None:
    """Return what makes a description out of the `arch` and `scale` of `spec`; None where it names no architecture."""
    arch = spec.arch
    if arch is None:
        return None

    def described() -> ModelInfo:
        from flashrib.model.architectures.registry import architecture_named, preset

        scales = architecture_named(arch).scales
        if spec.scale is None and len(scales) > 1:
            raise UsageError(f"{path}: says nothing about itself: with --arch {arch}, --scale is needed as well")
        config = preset(arch, spec.scale)
        if config.task != "upscale":
            raise UsageError(f"{path}: says nothing about itself, and --arch {arch} cannot stand in: export it again")
        info = info_of(config, 0)
        seen = attention_windows(path)
        if any(window != info.windows[i % len(info.windows)] for i, window in enumerate(seen) if info.windows):
            found = ", ".join(f"{rows}x{columns}" for rows, columns in dict.fromkeys(seen))
            raise ModelError(f"{path}: its attention has windows of {found}, so it is no {arch}: choose another --arch")
        return info

    return described


def says_nothing(path: Path) -> bool:
    """Whether an ONNX file says nothing about itself; one that is not whole is no such file."""
    try:
        describe_onnx(path)
    except SilentModelError:
        return True
    except ModelError:
        return False
    return False


def check_scale(path: Path, session: Session) -> None:
    """Run one small picture through a session whose description the user gave.

    Raises:
        ModelError: what comes out is not as large as the description says.
    """
    info = session.info
    side = max(info.minimum, 8)
    height, width = info.fixed_size or (side, side)
    seen = session.run(np.zeros((1, info.channels, height, width), np.float32)).shape
    wanted = (1, 3, height * info.scale, width * info.scale)
    if seen != wanted:
        raise ModelError(
            f"{path}: makes {'x'.join(map(str, seen[2:]))} pixels of {height}x{width}, so it is no {info.architecture} x{info.scale}:"
            " choose another --scale or --arch"
        )
