"""A whole Fibottention ViT on one CUDA GPU beside the same plain ViT and the official way.

    python benchmarks/vit.py [--size base] [--patches 16 8 4 2] [--mask neg_inf] [--dtype fp16] [--official]

Times are medians of replays of a CUDA graph; memory is the peak above weights and input.

    ours        `gpu_network`
    plain ViT   the same network with dense attention through PyTorch's flash kernel, torch.compile
    official    dense masks, eager, made beforehand; autocast plays no part, all weights are of the type
    floor       products with weights at 800 TFLOP/s, or the maps in memory at 3 TB/s, whichever takes longer: what no ViT is faster than
"""

import argparse
import dataclasses
from collections.abc import Callable

import torch
import triton.testing
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flashrib.model.architectures.fibottention_vit.config import FibottentionConfig
from flashrib.model.architectures.fibottention_vit.network import FibottentionViT
from flashrib.model.architectures.registry import network_from_config, preset
from flashrib.model.attention.fibonacci.offsets import support
from flashrib.model.gpu import gpu_network

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
PICTURES = {16: 64, 8: 16, 4: 4, 2: 1}


class OfficialAttention(nn.Module):
    """The official way: all scores, times the mask or with it, softmax."""

    kept: Tensor

    def __init__(self, attention: nn.Module, config: FibottentionConfig) -> None:
        super().__init__()
        self.qkv, self.proj, self.config = attention.qkv, attention.proj, config
        self.register_buffer("kept", support(attention.offsets, config.patches + 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.config.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * self.config.scale_of_logits
        zero = self.config.mask_mode == "zero_logit"
        scores = scores * self.kept if zero else scores.masked_fill(~self.kept, -torch.inf)
        return self.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, tokens, dim))


def official(network: FibottentionViT) -> FibottentionViT:
    """The network with the official attention in each block."""
    for block in network.blocks:
        block.attn = OfficialAttention(block.attn, network.config)
    return network


def measured(network: Callable[[Tensor], Tensor], picture: Tensor, flash: bool = False) -> str:
    """Median time in ms, pictures per second and peak memory in MB, or why there is none."""
    try:
        with torch.inference_mode(), sdpa_kernel([SDPBackend.FLASH_ATTENTION] if flash else list(_ALL)):
            for _ in range(3):
                network(picture)
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            network(picture)
            torch.cuda.synchronize()
            peak = (torch.cuda.max_memory_allocated() - before) / 1e6
            time = float(triton.testing.do_bench_cudagraph(lambda: network(picture), rep=60, return_mode="median"))
        return f"{time:.2f} ms, {1000 * len(picture) / time:.0f}/s, {peak:.0f} MB"
    except RuntimeError as error:
        return str(error).strip().splitlines()[0][:60]
    finally:
        torch.cuda.empty_cache()


_ALL = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH)


def floor(config: FibottentionConfig, batch: int) -> float:
    """Least time in ms: products of all blocks but the last, which only needs k and v, and the maps between them."""
    tokens, dim = batch * (config.patches + 1), config.dim
    weights = (config.depth - 1) * (4 * dim * dim + 2 * dim * config.hidden) + 2 * dim * dim
    maps = (config.depth - 1) * (4 + 2 + 4 + 2 * config.hidden / dim + 4) * dim * 2
    return 1e3 * max(2 * tokens * weights / 800e12, tokens * maps / 3e12)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="base")
    parser.add_argument("--patches", type=int, nargs="+", choices=PICTURES, default=list(PICTURES))
    parser.add_argument("--mask", choices=("neg_inf", "zero_logit"), default="neg_inf")
    parser.add_argument("--dtype", choices=TYPES, default="fp16")
    parser.add_argument("--official", action="store_true")
    arguments = parser.parse_args()
    dtype = TYPES[arguments.dtype]
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; {arguments.dtype}, {arguments.mask}")
    print("| patch | N+1 | batch | ours | plain ViT, compiled | official | floor, ms |\n|---|---|---|---|---|---|---|")
    for patch in arguments.patches:
        config = preset(f"fibottention-{arguments.size}-{patch}")
        assert isinstance(config, FibottentionConfig)
        config, batch = dataclasses.replace(config, mask_mode=arguments.mask), PICTURES[patch]
        torch.manual_seed(0)
        network = network_from_config(config).eval()
        picture = torch.rand(batch, 3, 224, 224, device="cuda").to(dtype)
        ours = gpu_network(network, dtype).cuda()
        row = [measured(ours, picture)]
        del ours
        plain = network_from_config(dataclasses.replace(config, mask_mode="dense")).eval().to("cuda", dtype)
        row.append(measured(torch.compile(plain), picture, flash=True))
        del plain
        row.append(measured(official(network).to("cuda", dtype), picture) if arguments.official else "")
        print(
            "| "
            + " | ".join([str(patch), str(config.patches + 1), str(batch), *row, f"{floor(config, batch):.2f}"])
            + " |"
        )


if __name__ == "__main__":
    main()
