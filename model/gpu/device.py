"""Where the operators of the GPU network run as Triton kernels."""

import importlib.util

from torch import Tensor

HAS_TRITON = importlib.util.find_spec("triton") is not None


def takes_kernels(x: Tensor) -> bool:
    """Whether an operator on `x` is a kernel: on a CUDA GPU. Elsewhere it is its definition in plain PyTorch."""
    return x.is_cuda
