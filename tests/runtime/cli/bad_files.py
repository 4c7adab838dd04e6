"""Files that nothing good can be made of, for the tests of bad input; each is written into the current folder."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from PIL import Image

from tests.model.networks import small_network
from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise

Prepare = Callable[[], object]
WEIGHT = "body.0.0.attn.to_qkv.weight"


def upscale(
    *arguments: str, model: str = "model.onnx", picture: str = "picture.png", out: str = "out.png"
) -> list[str]:
    return ["upscale", picture, "-o", out, "--model", model, *arguments]


def nothing() -> None:
    pass


def written(name: str, content: bytes | str) -> Prepare:
    return lambda: Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


def cut(name: str, **options: Any) -> Prepare:
    """A picture file whose second half is missing."""

    def write() -> None:
        Image.fromarray(noise(40, 30, 3)).save(name, **options)
        Path(name).write_bytes(Path(name).read_bytes()[: Path(name).stat().st_size // 2])

    return write


def gray(name: str, width: int, height: int) -> Prepare:
    return lambda: Image.new("L", (width, height), 9).save(name)


def bomb() -> None:
    """A PNG whose header promises 10^10 pixels."""
    header = b"IHDR" + struct.pack(">LLBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    end = b"IEND"
    chunks = b"".join(struct.pack(">L", len(c) - 4) + c + struct.pack(">L", zlib.crc32(c)) for c in (header, end))
    Path("bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def changed(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Prepare:
    """A .pth of a small network with something wrong."""

    def write() -> None:
        state_dict = {key: value.clone() for key, value in small_network().state_dict().items()}
        change(state_dict)
        torch.save(state_dict, name)

    return write


def changed_onnx(name: str, change: Callable[[onnx.ModelProto], object]) -> Prepare:
    """The good ONNX file with something wrong."""

    def write() -> None:
        model = onnx.load("model.onnx")
        change(model)
        Path(name).write_bytes(model.SerializeToString())

    return write


def opset(version: int) -> Callable[[onnx.ModelProto], object]:
    return lambda model: setattr(model.opset_import[0], "version", version)


def external(location: str) -> Callable[[onnx.ModelProto], object]:
    """Keeps a constant of 16 bytes in another file, whatever lies there."""

    def change(model: onnx.ModelProto) -> None:
        (tensor,) = model.graph.initializer
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("length", "16")):
            tensor.external_data.add(key=key, value=value)

    return change


def halved(source: str, name: str) -> Prepare:
    return lambda: Path(name).write_bytes(Path(source).read_bytes()[: Path(source).stat().st_size // 2])


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def two_folders() -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Image.fromarray(noise(8, 9, 3)).save(f"{folder}/same.png")


def one_alone() -> None:
    two_folders()
    gray("b/other.png", 9, 9)()


def pair(high: tuple[int, int], low: tuple[int, int]) -> Prepare:
    def write() -> None:
        Path("pairs").mkdir()
        gray("pairs/cat_HR.png", *high)()
        if min(low):
            gray("pairs/cat_LR.png", *low)()

    return write


def static_onnx() -> None:
    write_onnx(Path("static.onnx"), shape=(1, 3, 64, 64))
