"""PSNR of a network while it is trained, on pictures held out and on named sets."""

from collections.abc import Mapping

import numpy as np
import torch

from flashrib.model.network import Network
from flashrib.model.training.config import TrainConfig
from flashrib.model.training.data import Pair, load_pairs, pictures_of
from flashrib.runtime.quality.metrics import psnr


def load_sets(config: TrainConfig) -> dict[str, list[Pair]]:
    """The named validation sets: name -> pairs of every picture of its folder.

    Raises:
        UsageError, PictureError: see `pictures_of` and `load_pairs`.
    """
    return {
        name: load_pairs(pictures_of([folder]), config.scale) for name, folder in sorted(config.validation_sets.items())
    }


def validate(network: Network, pairs: list[Pair], device: torch.device) -> float:
    """Mean Y-PSNR in dB over whole pictures, border = scale."""
    network.eval()
    results = []
    with torch.inference_mode():
        for pair in pairs:
            low = torch.tensor(pair.low, device=device).permute(2, 0, 1)[None].float() / 255
            high = (network.upscale(low)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).to(torch.uint8).cpu().numpy()
            results.append(psnr(high, pair.high, border=network.config.scale))
    network.train()
    return float(np.mean(results))


def measure(
    network: Network, held_out: list[Pair], sets: Mapping[str, list[Pair]], device: torch.device
) -> dict[str, float]:
    """Y-PSNR in dB by column of the log: "psnr_y" of the pictures held out (of all sets, if there are none), "psnr_y NAME" of each set."""
    each = {f"psnr_y {name}": validate(network, pairs, device) for name, pairs in sets.items()}
    own = validate(network, held_out, device) if held_out else float(np.mean(list(each.values())))
    return {"psnr_y": own} | each
