"""The example's adapter gets from a pipeline what diffusers' transformers get, and gives what they give."""

import pytest
import torch
from torch import Tensor

from examples.clear_diffusers import ClearInPipeline
from flashrib.model.architectures.clear_dit.step import DenoiseStep
from flashrib.model.fold import fold
from tests.model.architectures.clear_dit.cases import inputs, network, tiny
from tests.official import max_abs


def ids(height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Positions as diffusers' FluxPipeline makes them, in the dtype of the prompt."""
    result = torch.zeros(height, width, 3)
    result[..., 1] = torch.arange(height)[:, None]
    result[..., 2] = torch.arange(width)[None]
    return result.reshape(-1, 3).to(dtype)


@pytest.mark.parametrize(("height", "width"), [(6, 9), (9, 6), (1, 300), (300, 1)])
def test_adapter(height: int, width: int) -> None:
    """Also where neighbouring rows or columns share a position in bfloat16."""
    config = tiny(3)
    transformer = network(config)
    adapter = ClearInPipeline(DenoiseStep(fold(transformer), config))
    latents, words, pooled, time, guidance = inputs(config, height, width)
    arguments = {
        "hidden_states": latents.flatten(1, 2),
        "encoder_hidden_states": words,
        "pooled_projections": pooled,
        "timestep": time,
        "guidance": guidance,
        "txt_ids": torch.zeros(config.text, 3),
        "img_ids": ids(height, width, torch.bfloat16),
        "joint_attention_kwargs": None,
    }
    (noise,) = adapter(**arguments, return_dict=False)
    assert max_abs(noise, transformer(latents, words, pooled, time, guidance).flatten(1, 2)) <= 1e-5
    assert torch.equal(adapter(**arguments).sample, noise)


def test_in_a_pipeline() -> None:
    pytest.importorskip(
        "transformers", reason="diffusers' FluxPipeline needs transformers and diffusers, which are not installed"
    )
    diffusers = pytest.importorskip("diffusers", reason="the package diffusers is not installed")
    config = tiny(3, in_channels=16, joint_dim=32, pooled_dim=32)
    step = DenoiseStep(fold(network(config)), config)
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4,), layers_per_block=1, latent_channels=4, norm_num_groups=1, use_quant_conv=False,
        use_post_quant_conv=False, shift_factor=0.1, scaling_factor=0.5,
    )  # fmt: skip
    pipeline = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=None,
    )
    pipeline.transformer = ClearInPipeline(step)
    words, pooled = torch.randn(1, config.text, 32), torch.randn(1, 32)
    result = pipeline(
        prompt_embeds=words,
        pooled_prompt_embeds=pooled,
        height=16,
        width=24,
        num_inference_steps=2,
        output_type="latent",
    )
    assert result.images.isfinite().all()
