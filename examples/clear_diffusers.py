"""CLEAR's transformer in diffusers' FLUX pipeline: VAE, text encoders and scheduler stay diffusers'.

    python examples/clear_diffusers.py FLUX.1-dev clear_local_8.safetensors --radius 8 --prompt "a lighthouse" --size 2048 --out out.png
 (FLUX.1-dev: a folder as diffusers saves it)

Needs `pip install diffusers transformers` and a GPU with 40 GB or more.
"""

import argparse
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from flashrib.model.architectures.clear_dit.fold import fold_onto
from flashrib.model.architectures.clear_dit.load import load_clear
from flashrib.model.architectures.clear_dit.step import DenoiseStep


class ClearInPipeline(nn.Module):
    """What a pipeline of diffusers calls as its `transformer`."""

    def __init__(self, step: DenoiseStep) -> None:
        super().__init__()
        self.step, self.dtype, self.device = step, step.dtype, step.device
        self.config = SimpleNamespace(in_channels=step.config.in_channels, guidance_embeds=step.config.guidance)

    def cache_context(self, name: str) -> Any:
        return contextlib.nullcontext()

    # fmt: off
    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, pooled_projections: Tensor, timestep: Tensor,
                img_ids: Tensor, guidance: Tensor | None = None, return_dict: bool = True, **_: Any) -> Any:
        # fmt: on
        # tokens at the first position of axis 1 are a row; sides themselves are not exact in the ids' bfloat16
        width = int((img_ids[:, 1] == img_ids[0, 1]).sum())
        latents = hidden_states.unflatten(1, (hidden_states.shape[1] // width, width))
        noise = self.step(latents, encoder_hidden_states, pooled_projections, timestep, guidance).flatten(1, 2)
        return SimpleNamespace(sample=noise) if return_dict else (noise,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("flux", "clear", "--radius", "--prompt", "--size", "--out"):
        parser.add_argument(name, required=True) if name.startswith("-") else parser.add_argument(name)
    arguments = parser.parse_args()
    from diffusers import FluxPipeline

    network = load_clear(Path(arguments.flux) / "transformer", arguments.clear, int(arguments.radius))
    folded = fold_onto(network, torch.bfloat16, torch.device("cuda"), consume=True)
    pipeline = FluxPipeline.from_pretrained(arguments.flux, transformer=None, torch_dtype=torch.bfloat16).to("cuda")
    pipeline.transformer = ClearInPipeline(DenoiseStep(folded, network.config))
    pipeline(arguments.prompt, height=int(arguments.size), width=int(arguments.size)).images[0].save(arguments.out)


if __name__ == "__main__":
    main()
