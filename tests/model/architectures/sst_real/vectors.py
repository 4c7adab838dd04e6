"""The official vectors of SST-Real: constructor arguments of the official code -> our configuration, and where the files lie."""

import functools
import json
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from flashrib.model.architectures.sst_real.config import SSTRealConfig
from flashrib.model.architectures.sst_real.network import SSTReal
from tests.official import pair
from tests.places import SHARED

FOLDERS = [SHARED / "golden" / name for name in ("sst", "sst_real")]


def config_from_official(kwargs: dict[str, Any], pad_to: int = 64, sigma: float = 1.0) -> SSTRealConfig:
    """Translate the official constructor's arguments."""
    dim = kwargs["dim"]
    return SSTRealConfig(
        "sst-real-custom",
        dim=dim,
        windows=tuple(pair(w) for w in kwargs["window_sizes"]),
        heads=tuple(kwargs["num_heads"]),
        ranks=tuple(kwargs["ranks"]),
        blocks=kwargs["num_blocks"],
        ffn_dim=int(int(dim * kwargs["exp_ratio"]) * 2 / 3),
        intermediate_dim=kwargs["intermediate_dim"],
        emb_channels=kwargs["emb_channels"],
        noise_channels=kwargs["noise_channels"],
        fuse_till=min(kwargs["fuse_lr_till"], kwargs["num_blocks"] - 1),
        guide_block=kwargs["ig_idx"],
        rib_hidden=kwargs["rib_hidden_dim"],
        rib_freqs=kwargs["rib_n_freqs"],
        gate=kwargs["gate_type"],
        sigma_data=kwargs["sigma_data"],
        use_skip=kwargs["use_skip"],
        guidance=kwargs["sampling_ig_lambda"],
        sigma=sigma,
        pad_to=pad_to,
        dropout=kwargs["drop_p"],
    )


def names(kind: str) -> list[str]:
    """Names of the vectors of a kind, "network" or "pipeline"; none where the shared folder is not at hand."""
    files = [path for folder in FOLDERS for path in sorted(folder.glob("*real*.json"))]
    about = {path.stem: json.loads(path.read_text()) for path in files}
    return [n for n, a in about.items() if a.get("kind") == kind and a.get("type") == "EDMUNet"]


@functools.cache
def load(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    folder = next(f for f in FOLDERS if (f / f"{name}.json").exists())
    return json.loads((folder / f"{name}.json").read_text()), load_file(folder / f"{name}.safetensors")


def network(name: str, dtype: torch.dtype = torch.float32, **more: Any) -> SSTReal:
    """The network of a vector with its weights, in eval mode."""
    about, tensors = load(name)
    made = SSTReal(config_from_official(about["kwargs"], **more))
    made.load_state_dict({key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")})
    return made.to(dtype).eval()


def pictures(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Tensors of each picture of a vector, whose names begin with "0.", "1.", ... where there are several."""
    count = sum(key.endswith(".input") for key in tensors) or 1
    if "input" in tensors:
        return [{k: v for k, v in tensors.items() if not k.startswith("sd.")}]
    return [{k.removeprefix(f"{i}."): v for k, v in tensors.items() if k.startswith(f"{i}.")} for i in range(count)]
