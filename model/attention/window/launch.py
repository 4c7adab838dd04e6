"""How kernels of `window_attention` are launched: what the forward and the backward pass share."""

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from flashrib.model.attention.window.geometry import padded_length
from flashrib.model.attention.window.tuning import Blocks, power_of_two


@functools.cache
def configured(kernel: Any, blocks: Blocks) -> Any:
    """A kernel with its block sizes; as the only configuration of an autotuned kernel, since that carries the limit of registers."""
    config = triton.Config(
        {"BM": blocks.queries, "BN": blocks.keys, "STAGES": blocks.stages},
        num_warps=blocks.warps,
        maxnreg=blocks.registers,
    )
    return triton.autotune([config], key=[])(kernel)


def capability(device: torch.device) -> int:
    """Compute capability of a device, 10 * major + minor."""
    if device.type != "cuda":
        return 90  # Triton's interpreter on the CPU: any blocks will do
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def constants(
    qkv: Tensor, pos_q: Tensor, pos_k: Tensor, window: list[int], heads: int, shift: list[int]
) -> dict[str, Any]:
    """What all kernels of a layer are compiled for, but their blocks."""
    _, height, width, channels = qkv.shape
    (wh, ww), head_dim, rank = window, channels // (3 * heads), pos_q.shape[-1]
    padded_h, padded_w = padded_length(height, wh), padded_length(width, ww)
    exact = torch.backends.cuda.matmul.fp32_precision != "tf32"
    return {
        "HEADS": heads,
        "D": head_dim,
        "R": rank,
        "WH": wh,
        "WW": ww,
        "SHIFT_H": shift[0],
        "SHIFT_W": shift[1],
        "DP": power_of_two(head_dim),
        "RP": power_of_two(rank),
        "TINY": padded_h - 1 > 2 * (height - 1) or padded_w - 1 > 2 * (width - 1),
        "SHARED": pos_k.shape[0] != heads,
        "PRECISION": "tf32x3" if exact else "tf32",
    }


def number_of_windows(qkv: Tensor, window: list[int]) -> int:
    """Windows of all maps of the batch."""
    batch, height, width, _ = qkv.shape
    return batch * (padded_length(height, window[0]) // window[0]) * (padded_length(width, window[1]) // window[1])
