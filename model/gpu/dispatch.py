"""Which form of the operators a tensor takes."""

from types import ModuleType

from torch import Tensor

from flashrib.model.gpu import reference


def operators(x: Tensor) -> ModuleType:
    """The module with the network's operators for the device of `x`: kernels on a CUDA GPU, their definitions elsewhere."""
    if not x.is_cuda:
        return reference
    from flashrib.model.gpu import operators as kernels  # Triton is not everywhere

    return kernels
