"""CLEAR for a CUDA GPU: the deployment form in 16 bit with its passes as Triton kernels."""

import torch

from flashrib.model.architectures.clear_dit.deploy import DeployedClear
from flashrib.model.architectures.clear_dit.fold import fold_onto
from flashrib.model.architectures.clear_dit.network import ClearTransformer


def gpu(network: ClearTransformer, dtype: torch.dtype) -> DeployedClear:
    """The form for a GPU, still on the device of `network`; see `flashrib.model.architectures.clear_dit.step` to run it."""
    return fold_onto(network, dtype, next(network.parameters()).device)
