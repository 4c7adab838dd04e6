"""Training form -> deployment form, of any architecture; the parts of it are in `flashrib.model.folding`."""

import torch

from flashrib.model.architectures.registry import architecture_of
from flashrib.model.deploy import Deployed
from flashrib.model.network import Network


def fold(network: Network, *, head_multiple: int = 1, dtype: torch.dtype = torch.float32) -> Deployed:
    """Return the deployment form of `network`, in eval mode; `network` stays as it is.

    Args:
        network: of any architecture.
        head_multiple: widen every head to a multiple of this many channels, for kernels that want it (the fused GPU kernels
            want 8); 1 leaves the heads alone.
        dtype: dtype of the result; everything is computed in float64 before.
    """
    return architecture_of(network.config).fold(network, head_multiple=head_multiple, dtype=dtype)
