"""The models that come with flashrib, by name: each as an ONNX file and as weights for PyTorch.

They lie compressed in the package. A file is unpacked when it is wanted for the first time, and is ordinary from then on; its hash is
checked each time.
"""

import atexit
import functools
import hashlib
import lzma
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from flashrib.runtime.artifacts.cache import cache_folder
from flashrib.runtime.artifacts.files import sha256_of, write_whole
from flashrib.runtime.errors import FlashribError, ModelError, UsageError

DEFAULT = "x2"
SUMS = "SHA256SUMS"  # of the unpacked files, as sha256sum writes it


@dataclass(frozen=True)
class Bundled:
    """A bundled model.

    Attributes:
        name: what `--model` calls it.
        about: what it is for, in a few words.
        model: its ONNX file.
        weights: its weights, a .safetensors file.
    """

    name: str
    about: str
    model: str
    weights: str


BUNDLED = {
    row.name: row
    for row in (
        Bundled("x2", "twice the size, of clean pictures", "2x_SSTlight_fp32.onnx", "sst-light-x2.safetensors"),
        Bundled("x4", "four times the size, of clean pictures", "4x_SSTlight_fp32.onnx", "sst-light-x4.safetensors"),
        Bundled(
            "photo",
            "twice the size, of photographs with blur, noise and JPEG artefacts",
            "2x_SSTlight_photo_fp32.onnx",
            "sst-light-photo-x2.safetensors",
        ),
    )
}


def bundled_model(name: str = DEFAULT) -> Path:
    """Return the path of a bundled model's ONNX file.

    Raises:
        UsageError: no model has this name.
        ModelError: this installation lacks it, or it is damaged.
    """
    return _unpacked(_row(name).model)


def bundled_weights(name: str = DEFAULT) -> Path:
    """Return the path of a bundled model's weights, a .safetensors file. Errors as of `bundled_model`."""
    return _unpacked(_row(name).weights)


def is_bundled(model: str | os.PathLike[str] | None) -> bool:
    """Say whether a model is one of the bundled, by its name or by None.

    Raises:
        UsageError: a file has the name too.
    """
    if model is None:
        return True
    if os.fspath(model) not in BUNDLED:
        return False
    if Path(model).is_file():
        raise UsageError(
            f"{os.fspath(model)}: a bundled model has this name and so has a file here: give the file's whole path, or rename it"
        )
    return True


def or_bundled_model(path: Path) -> Path:
    """Return the ONNX file of the bundled model that `path` names, otherwise `path`."""
    return bundled_model(str(path)) if is_bundled(path) else path


def or_bundled_weights(path: Path | None) -> Path:
    """Return the weights of the bundled model that `path` names, those of the default where it is None, otherwise `path`."""
    return bundled_weights(DEFAULT if path is None else str(path)) if path is None or is_bundled(path) else path


def _row(name: str) -> Bundled:
    if name not in BUNDLED:
        raise UsageError(f"{name}: no bundled model has this name; there are {', '.join(BUNDLED)}")
    return BUNDLED[name]


def _unpacked(name: str) -> Path:
    """The file, unpacked in the cache, or in a temporary folder where there is no cache to write to."""
    folder = Path(str(resources.files("flashrib.runtime"))) / "weights"
    packed = folder / f"{name}.xz"
    missing = f"{packed}: the bundled model is missing from this installation: install flashrib again, or pass --model"
    try:
        lines = [line.split() for line in (folder / SUMS).read_text().splitlines()]
        wanted = next(digest for digest, file in lines if file == name)
    except (OSError, ValueError, StopIteration) as error:
        raise ModelError(missing) from error
    places: tuple[Callable[[], Path], ...] = (_cache, _temporary)
    for place in places:
        try:
            path = place() / wanted[:16] / name
            if not (path.is_file() and sha256_of(path) == wanted):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, _content(packed, wanted, missing))
        except ModelError:
            raise
        except (OSError, FlashribError) as error:
            failed = error
        else:
            return path
    raise ModelError(f"{name}: the bundled model cannot be unpacked: {failed}") from failed


def _content(packed: Path, wanted: str, missing: str) -> bytes:
    try:
        content = lzma.decompress(packed.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(missing) from error
    except (OSError, lzma.LZMAError) as error:
        raise ModelError(f"{packed}: the bundled model is damaged ({error}): install flashrib again") from error
    if hashlib.sha256(content).hexdigest() != wanted:
        raise ModelError(f"{packed}: the bundled model is not what {SUMS} says: install flashrib again")
    return content


def _cache() -> Path:
    return cache_folder() / "models"


@functools.cache
def _temporary() -> Path:
    folder = tempfile.mkdtemp(prefix="flashrib-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
