"""The networks for a CUDA GPU, in fp16 or bf16: the deployment form with every pass over the map fused."""

import torch
from torch import nn

from flashrib.model.architectures.registry import architecture_of
from flashrib.model.network import Network
from flashrib.runtime.errors import UsageError

__all__ = ["gpu_network"]


def gpu_network(network: Network, dtype: torch.dtype = torch.float16) -> nn.Module:
    """Return `network` as it runs fastest on a CUDA GPU, in eval mode, on the CPU; `network` stays as it is.

    The result takes pictures (B, 3, H, W), RGB in 0..1, float32 or `dtype`, and gives (B, 3, rH, rW) of the same dtype, not clamped.
    It has buffers and no parameters, so `.to(device)` moves it, but it cannot be trained.

    Args:
        network: of an architecture that has a form for GPUs.
        dtype: of weights and maps: torch.float16 or torch.bfloat16 (torch.float32 for comparisons). Position codes, the folding of
            constants and statistics of LayerNorm are computed in float64 and float32 whatever it is.

    Raises:
        UsageError: the architecture has no form for GPUs.
    """
    row = architecture_of(network.config)
    if row.gpu is None:
        raise UsageError(f"{network.config.name} has no form for GPUs of its own: run its deployment form (model.fold)")
    return row.gpu(network, dtype).eval()
