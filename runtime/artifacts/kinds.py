"""Kinds of model files: `FILES` has a row for each, `recognise_file` says which one a file is.

A kind that comes from outside adds a row: `FILES["toy"] = FileKind(...)`.
"""

import os
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flashrib.runtime.errors import ModelError


@dataclass(frozen=True)
class FileKind:
    """How files of a kind are told from others.

    Attributes:
        name: the row's name, "onnx".
        called: in messages, with its article: "an ONNX file".
        suffixes: of names, in lower case; they decide where the content does not.
        holds: takes the first 16 bytes and the path; True where the content is unmistakably of this kind.
    """

    name: str
    called: str
    suffixes: tuple[str, ...]
    holds: Callable[[bytes, Path], bool]


def recognise_file(path: str | os.PathLike[str]) -> FileKind:
    """Return the kind of a model file.

    The content decides where it is unmistakable, otherwise the name; whoever reads the file then says what is wrong with it.

    Raises:
        ModelError: no such file, it cannot be read, or it is of no kind.
    """
    path = Path(path)
    start = _start(path)
    for kind in FILES.values():
        if kind.holds(start, path):
            return kind
    for kind in FILES.values():
        if path.suffix.lower() in kind.suffixes:
            return kind
    known = " nor ".join(f"{kind.called} ({', '.join(kind.suffixes)})" for kind in FILES.values())
    raise ModelError(f"{path}: neither {known}: it starts with {start!r}" if start else f"{path}: the file is empty")


def _start(path: Path) -> bytes:
    """The first 16 bytes, fewer where the file is shorter."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading a pipe could wait for ever
            raise ModelError(f"{path}: cannot be read as a model: it is no regular file: copy it into one")
        with path.open("rb") as file:
            return file.read(16)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as a model: {getattr(error, 'strerror', None) or error}") from error


# ZIP archive and plain pickles of protocol 2 to 5, as torch.save writes them.
_ZIP = b"PK\x03\x04"
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_ENGINES = (b"ptrt", b"vtrt", b"ftrt")  # how TensorRT's serialised engines begin


def _holds_package(start: bytes, path: Path) -> bool:
    """An archive with the folder of AOTInductor, or a damaged one with its name."""
    if not start.startswith(_ZIP):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/aotinductor/" in name for name in archive.namelist())
    except Exception:  # bytes of unknown origin: zipfile raises whatever it stumbles over
        return path.suffix.lower() == ".pt2"


def _holds_checkpoint(start: bytes, path: Path) -> bool:
    """An archive or a pickle of torch.save; or a .safetensors file: a JSON header's length in eight bytes, lowest first, then it."""
    return start.startswith((_ZIP, *_PICKLES)) or (start[8:9] == b"{" and start[5:8] == bytes(3))


ENGINE = FileKind("engine", "an engine", (".engine", ".plan", ".trt"), lambda start, path: start.startswith(_ENGINES))
PACKAGE = FileKind("package", "a package", (".pt2",), _holds_package)
CHECKPOINT = FileKind("checkpoint", "a checkpoint", (".pth", ".pt", ".ckpt", ".safetensors"), _holds_checkpoint)
# A protobuf message that begins with the field ir_version, a number.
ONNX = FileKind("onnx", "an ONNX file", (".onnx",), lambda start, path: start.startswith(b"\x08"))

FILES = {kind.name: kind for kind in (ENGINE, PACKAGE, CHECKPOINT, ONNX)}
"""Packages stand before checkpoints, which may be archives too."""
