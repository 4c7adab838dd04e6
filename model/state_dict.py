"""Files with the parameters of a network: PyTorch's .pth and .safetensors.

A pickle can carry code, and this code is never run: files are read with PyTorch's `weights_only` unpickler, which builds tensors and
plain containers alone and refuses everything else, but for argparse's Namespace, a record in which MAE's code keeps its options.
"""

import argparse
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flashrib.model.wrapped import NESTS, below, innermost, places, without_wrappers
from flashrib.runtime.errors import CheckpointError

# In the header of our own .safetensors files: the name of the network, and `weights_hash` of its parameters.
ARCHITECTURE, WEIGHTS_HASH = "flashrib.architecture", "flashrib.weights_sha256"

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: the file.
        state_dict: key -> float32 tensor on the CPU.
        metadata: header of a .safetensors file, empty for a .pth.
        dtype: what the tensors were stored as, such as "float32" or "bfloat16, float32".
    """

    path: Path
    state_dict: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float32"


def read_state_dict(path: str | Path) -> Mapping[str, Tensor]:
    """Return the parameters in a .pth, .pt or .safetensors file as float32 tensors on the CPU; see `read_checkpoint`."""
    return read_checkpoint(path).state_dict


def read_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Read a .pth, .pt or .safetensors file; its content decides which of them it is.

    Of a .pth, the dictionary of tensors is taken that `flashrib.model.wrapped.innermost` finds, `params_ema` before others; what PyTorch
    puts in front of keys ("module.", "_orig_mod.") is dropped.
    float16, bfloat16 and float64 become float32.

    Args:
        path: of the file.
        key: where in the file the network's tensors are, where they are not found or others are meant; see `flashrib.model.wrapped.below`.

    Raises:
        CheckpointError: the file cannot be read, is no checkpoint, is damaged, carries code, or holds anything but finite
            floating-point tensors.
    """
    path = Path(path)
    start = _start_of(path)
    if start[8:9] == b"{":  # a .safetensors file: eight bytes of length, then JSON
        tensors, metadata = _read_safetensors(path, key)
    elif start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):  # ZIP, pickle protocols
        tensors, metadata = _read_pickle(path, key), {}
    else:
        raise CheckpointError(
            f"{path}: not a checkpoint: neither a PyTorch .pth nor a .safetensors file (it starts with {start!r})"
        )
    state_dict = {key: _float32(path, key, value) for key, value in without_wrappers(tensors).items()}
    infinite = [key for key, value in state_dict.items() if not np.isfinite(value.numpy()).all()]
    if infinite:
        raise CheckpointError(
            f"{path}: NaN or infinite weights in {len(infinite)} tensors: {first_ten([repr(key) for key in infinite])}"
        )
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values()})
    return Checkpoint(path, state_dict, metadata, ", ".join(dtypes))


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return hash of names, types and shapes, and hash of the values, with a colon between; for the header of our own files."""
    layout, values = hashlib.sha256(), hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        layout.update(f"{key!r} {tensor.dtype} {tuple(tensor.shape)};".encode())
        values.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"{layout.hexdigest()}:{values.hexdigest()}"


def _check_weights(path: Path, tensors: Mapping[str, Tensor], stated: str | None) -> None:
    """Refuse weights that are not those that the file was written with; where others changed names or types, nothing is known."""
    if stated is None:
        return
    seen = weights_hash(tensors)
    if seen != stated and seen.partition(":")[0] == stated.partition(":")[0]:
        raise CheckpointError(
            f"{path}: its weights are not those that it was written with: it is damaged: copy it again"
        )


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def first_ten(items: list[str]) -> str:
    """The first ten, and how many more there are."""
    return ", ".join(items[:10]) + (f" and {len(items) - 10} more" if len(items) > 10 else "")


def _start_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: the checkpoint cannot be read: {error.strerror}") from error
    if not start:
        raise CheckpointError(f"{path}: the checkpoint is empty (0 bytes)")
    return start


def _below(path: Path, content: Mapping[Any, Any], key: str | None) -> Mapping[Any, Any]:
    if key is None:
        return content
    try:
        return below(content, key)
    except KeyError:
        known = first_ten(list(map(repr, places(content)))) or "nothing that has a name"
        raise CheckpointError(f"{path}: holds nothing called {key!r} (--key): it holds {known}") from None


def _read_safetensors(path: Path, key: str | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f"{path}: a damaged or truncated .safetensors file: {_one_line(error)}") from error
    if not tensors:
        raise CheckpointError(f"{path}: no tensors inside")
    _check_weights(path, tensors, metadata.get(WEIGHTS_HASH))
    return dict(_below(path, tensors, key)), metadata


def _read_pickle(path: Path, key: str | None) -> dict[str, Tensor]:
    """The tensors of a .pth file."""
    content = _unpickle(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dictionary of tensors")
    whole, content = content, innermost(_below(path, content, key))
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    others = [f"{name!r} ({type(value).__name__})" for name, value in content.items() if name not in tensors]
    if not tensors:
        if key is None and (found := places(whole)):
            raise CheckpointError(
                f"{path}: which of its dictionaries is the network is not known: name it with --key: {first_ten(found)}"
            )
        raise CheckpointError(
            f"{path}: no tensors at its top level, which has {first_ten(others) or 'no entries'}, nor in a dictionary called"
            f" {', '.join(NESTS[:-1])} or {NESTS[-1]}"
        )
    if others:
        raise CheckpointError(f"{path}: entries of the state dict that are no tensors: {first_ten(others)}")
    return tensors


def _unpickle(path: Path) -> Any:
    try:
        check_archive(path)
        # The open file and not its path: torch.load would go by a suffix ".safetensors".
        safe = torch.serialization.safe_globals([argparse.Namespace])
        with warnings.catch_warnings(), safe, path.open("rb") as file:
            warnings.simplefilter("ignore")  # about old formats; whatever matters is raised
            return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it asks for {code[1]}" if code else "it holds more than tensors and plain containers"
        raise CheckpointError(
            f"{path}: refused, because a pickle can run code and {what}: in the program that made it, save its state_dict() alone,"
            " best as .safetensors"
        ) from error
    except Exception as error:  # bytes of unknown origin: torch.load raises whatever its parsing stumbles over
        raise CheckpointError(f"{path}: a damaged or truncated PyTorch file: {_one_line(error)}") from error


def check_archive(path: Path) -> None:
    """Refuse a ZIP archive with damaged entries, which torch.load would turn into wrong weights, or that is no checkpoint."""
    if not zipfile.is_zipfile(path):  # a plain pickle, or an archive whose directory, at its end, was cut off
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if not any(name.endswith("/data.pkl") for name in names):
            raise CheckpointError(f"{path}: a ZIP archive, but not a PyTorch checkpoint: no data.pkl inside")
        if any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(
                f"{path}: a TorchScript program, which holds code: pass the checkpoint that it was made from"
            )
        size, claimed = path.stat().st_size, sum(entry.file_size for entry in archive.infolist())
        if (
            claimed > 4 * size + 1_000_000
        ):  # PyTorch does not compress; a bomb would keep the checksums busy for minutes
            raise CheckpointError(f"{path}: a ZIP archive of {size} bytes that claims to hold {claimed}: refused")
        damaged = archive.testzip()
    if damaged is not None:
        raise CheckpointError(f"{path}: damaged: the checksum of its entry {damaged!r} is wrong")


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:200]


def _float32(path: Path, key: str, value: Tensor) -> Tensor:
    if value.dtype not in _DTYPES or value.layout is not torch.strided or value.device.type != "cpu":
        quantized = value.dtype in (torch.int8, torch.uint8) or value.is_quantized
        advice = "pass the checkpoint before quantization" if quantized else "no network of flashrib has such a tensor"
        raise CheckpointError(
            f"{path}: {key!r} is a tensor of {value.dtype} ({value.layout}, {value.device}), not of floating-point weights: {advice}"
        )
    if (
        value.numel() * value.element_size() > value.untyped_storage().nbytes()
    ):  # strides of 0: a few bytes for terabytes
        raise CheckpointError(
            f"{path}: {key!r} has the shape {tuple(value.shape)}, but the file does not hold as many values"
        )
    return value.detach().to(torch.float32)
