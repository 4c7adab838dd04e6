"""Weights of FLUX, in one or several .safetensors files, with a CLEAR file laid over them; read tensor by tensor, never twice in
memory."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from flashrib.model.architectures.clear_dit.config import ClearConfig, overlay_shapes
from flashrib.model.architectures.clear_dit.network import ClearTransformer
from flashrib.model.architectures.clear_dit.recognise import config_of_shapes
from flashrib.model.architectures.reader import Reader
from flashrib.runtime.errors import CheckpointError

INDEX = "diffusion_pytorch_model.safetensors.index.json"
SINGLE = "diffusion_pytorch_model.safetensors"
_LARGEST = 65536


class Shards:
    """Tensors of one or several .safetensors files by name. The files stay open, mapped into memory, until the stack closes."""

    def __init__(self, path: str | Path, stack: ExitStack) -> None:
        """Open a .safetensors file, the index of several, or a folder of diffusers with either.

        Raises:
            CheckpointError: none of these, damaged, or a file of the index is missing.
        """
        self.path = Path(path)
        self.files: dict[str, Any] = {}
        for file in _files_of(self.path):
            try:
                opened = stack.enter_context(safe_open(file, framework="pt", device="cpu"))
            except (SafetensorError, OSError) as error:
                reason = " ".join(str(error).split())
                raise CheckpointError(f"{file}: not a .safetensors file that can be read: {reason}") from error
            self.files |= dict.fromkeys(opened.keys(), opened)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes, from the headers alone."""
        return {key: tuple(file.get_slice(key).get_shape()) for key, file in self.files.items()}

    def tensor(self, key: str) -> Tensor:
        """Read one tensor.

        Raises:
            CheckpointError: it is not of floating point, or has NaN or infinite values.
        """
        value: Tensor = self.files[key].get_tensor(key)
        if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{self.path}: {key!r} ({value.dtype}) must have finite floating-point values")
        return value


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        found = [path / name for name in (INDEX, SINGLE) if (path / name).is_file()]
        if not found:
            raise CheckpointError(
                f"{path}: a folder with neither {INDEX} nor {SINGLE}: name the folder of the transformer"
            )
        path = found[0]
    if path.suffix != ".json":
        return [path]
    try:
        names = json.loads(path.read_text())["weight_map"].values()
        files = [path.with_name(name) for name in sorted(set(names))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not an index of .safetensors files: {error}") from error
    if any(file.name not in names for file in files):
        raise CheckpointError(f"{path}: names files outside its own folder")
    if missing := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(f"{path}: {missing[0]} is missing beside it")
    return files


def load_clear(
    flux: str | Path,
    clear: str | Path | None,
    radius: int | None,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    **facts: Any,
) -> ClearTransformer:
    """Load FLUX's transformer and lay a CLEAR file over it.

    Args:
        flux: folder, index or file of the transformer's weights, names as in diffusers.
        clear: CLEAR's file: exactly 380 tensors for FLUX, 437 with pooling; None leaves FLUX as it is.
        radius: that CLEAR's file was trained for, which only its name tells; None for FLUX's own attention.
        dtype: of the weights in memory.
        device: where they go, one after the other.
        facts: further fields of `ClearConfig`, such as `ntk_factor=10, proportional=True`.

    Raises:
        CheckpointError: files that cannot be read; names or shapes missing, unexpected or wrong; NaN.
        UsageError: facts that do not go together.
    """
    with ExitStack() as stack:
        base = Shards(flux, stack)
        shapes = base.shapes()
        over = Shards(clear, stack) if clear is not None else None
        overlay = {} if over is None else over.shapes()
        config = _config(base.path, shapes | overlay, radius, facts)
        if over is not None:
            Reader(_meta(overlay), over.path, "a CLEAR", _LARGEST).check_keys(_meta(overlay_shapes(config)))
        with torch.device("meta"):
            network = ClearTransformer(config)
        Reader(_meta(shapes | overlay), base.path, "a FLUX", _LARGEST).check_keys(network.state_dict())
        for key in network.state_dict():
            source = over if over is not None and key in overlay else base
            assign(network, key, source.tensor(key).to(device, dtype))
    return network.eval().requires_grad_(False)


def assign(network: nn.Module, key: str, value: Tensor) -> None:
    """Put a tensor in the place of a parameter."""
    owner, _, name = key.rpartition(".")
    setattr(network.get_submodule(owner), name, nn.Parameter(value, requires_grad=False))


def _config(path: Path, shapes: dict[str, tuple[int, ...]], radius: int | None, facts: dict[str, Any]) -> ClearConfig:
    read = Reader(_meta(shapes), path, "a FLUX", _LARGEST)
    seen = config_of_shapes(read, radius, facts.pop("axes", None))
    values = {field: getattr(seen, field) for field in seen.__dataclass_fields__}
    return ClearConfig(**values | facts)


def _meta(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
