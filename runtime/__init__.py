"""Model files run on pictures, tiled and proven; imports neither PyTorch nor onnx before it is asked to.

    from flashrib.runtime import open_session, read_picture, upscale_picture, write_picture

    with open_session() as session:
        write_picture("large.png", upscale_picture(session, read_picture("small.png")))

The names below are loaded when they are first used.
"""

from typing import TYPE_CHECKING

from flashrib.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from flashrib.runtime.artifacts.bundled import bundled_model, bundled_weights
    from flashrib.runtime.artifacts.info import ModelInfo
    from flashrib.runtime.errors import FlashribError
    from flashrib.runtime.pictures.files import read_picture, write_picture
    from flashrib.runtime.pictures.picture import Picture
    from flashrib.runtime.quality.parity import verify
    from flashrib.runtime.sessions.protocol import Session
    from flashrib.runtime.sessions.spec import SessionSpec
    from flashrib.runtime.sessions.table import describe_model, open_session
    from flashrib.runtime.tiling.upscale import upscale_array, upscale_picture

__all__ = [
    "FlashribError",
    "ModelInfo",
    "Picture",
    "Session",
    "SessionSpec",
    "bundled_model",
    "bundled_weights",
    "describe_model",
    "open_session",
    "read_picture",
    "upscale_array",
    "upscale_picture",
    "verify",
    "write_picture",
]

_HOMES = {
    "FlashribError": "errors",
    "ModelInfo": "artifacts.info",
    "Picture": "pictures.picture",
    "Session": "sessions.protocol",
    "SessionSpec": "sessions.spec",
    "bundled_model": "artifacts.bundled",
    "bundled_weights": "artifacts.bundled",
    "describe_model": "sessions.table",
    "open_session": "sessions.table",
    "read_picture": "pictures.files",
    "upscale_array": "tiling.upscale",
    "upscale_picture": "tiling.upscale",
    "verify": "quality.parity",
    "write_picture": "pictures.files",
}


__getattr__, __dir__ = lazy_names(globals(), _HOMES)
