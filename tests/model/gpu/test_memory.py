"""Memory of the network for GPUs, counted from the sizes of its maps on PyTorch's meta device, which computes nothing.

The count is that of PyTorch's allocator without its rounding: 1.68 GiB where 1.69 were measured, 0.75 where 0.75 were (sst and esc-rib
at 540x960, one H100).
"""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flashrib.model import build_model
from flashrib.model.architectures.sst.gpu import GpuSST
from flashrib.model.gpu import device, gpu_network, layers, pointwise, spatial
from flashrib.model.sizes import round_up
from tests.official import UPSCALERS


class Peak(TorchDispatchMode):
    """Bytes of the tensors made since, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.bytes += storage.nbytes()
                    self.most = max(self.most, self.bytes)
                    weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return result

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.bytes -= size


def attention_shape(qkv: Tensor) -> tuple[int, ...]:
    return (*qkv.shape[:3], qkv.shape[3] // 3)


class NoLaunch:
    """In place of a kernel: its operator makes the results and leaves them empty."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **constants: None


@pytest.mark.parametrize("name", UPSCALERS)
def test_peak(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No map outlives its last use: the peak is that of the pass that needs most, with x of the network and of the block beside it."""
    monkeypatch.setattr(device, "takes_kernels", lambda x: True)
    for module in (pointwise, spatial):
        monkeypatch.setattr(module, "wrap_triton", lambda kernel: NoLaunch())
    monkeypatch.setattr(layers.WindowAttention, "forward", lambda _, qkv, gate: qkv.new_empty(attention_shape(qkv)))
    network = build_model(name, 4)
    deployed: Any = gpu_network(network).to("meta")
    picture = torch.empty(1, 3, 576, 960, device="meta")
    with torch.no_grad(), Peak() as peak:
        deployed(picture)

    dim = round_up(deployed.config.dim, 8)
    if isinstance(deployed, GpuSST):
        layer: Any = deployed.blocks[0].layers[0]
        inner, hidden = layer.gate.weight.shape[0], layer.middle.out_width
        ffn = hidden + 3 * dim + 3 * inner if dim <= 64 else dim + 2 * hidden
        wanted = 2 * dim + max(dim + 5 * inner, 2 * dim + 4 * inner, ffn)
    else:
        wanted = 2 * dim + 2 * deployed.blocks[0].begin.depthwise.weight.shape[-1]
    assert wanted <= peak.most / (2 * 576 * 960) <= 1.05 * wanted
