"""The networks for a CUDA GPU, in fp16 or bf16: the deployment form with every pass over the map fused."""

import torch

from flashrib.model import deploy
from flashrib.model.architectures.esc.gpu import GpuESC
from flashrib.model.architectures.registry import Network
from flashrib.model.architectures.sst.gpu import GpuSST
from flashrib.model.fold import fold
from flashrib.model.gpu.network import GpuNetwork

__all__ = ["gpu_network"]


def gpu_network(network: Network, dtype: torch.dtype = torch.float16) -> GpuNetwork:
    """Return `network` as it runs fastest on a CUDA GPU, in eval mode, on the CPU; `network` stays as it is.

    The result takes pictures (B, 3, H, W), RGB in 0..1, float32 or `dtype`, and gives (B, 3, rH, rW) of the same dtype, not clamped.
    It has buffers and no parameters, so `.to(device)` moves it, but it cannot be trained.

    Args:
        network: SST or ESC.
        dtype: of weights and maps: torch.float16 or torch.bfloat16 (torch.float32 for comparisons). Position codes, the folding of
            constants and statistics of LayerNorm are computed in float64 and float32 whatever it is.
    """
    folded = fold(network, head_multiple=8, dtype=torch.float64)
    if isinstance(folded, deploy.DeployedSST):
        return GpuSST(folded, dtype).eval()
    assert isinstance(folded, deploy.DeployedESC)
    return GpuESC(folded, dtype).eval()
