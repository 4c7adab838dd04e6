"""How kernels of `offset_attention` are launched: what the forward and the backward pass share."""

import functools
from typing import Any

import triton


@functools.cache
def with_warps(kernel: Any, warps: int) -> Any:
    """The kernel with its number of warps, as the only configuration of an autotuned kernel: PyTorch takes it along when it compiles."""
    return triton.autotune([triton.Config({}, num_warps=warps)], key=[])(kernel)
