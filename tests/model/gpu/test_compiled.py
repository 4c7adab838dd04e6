"""The passes of the presets compile for GPUs of every kind, within the shared memory that a program may have there; no GPU needed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from flashrib.model import build_model
from flashrib.model.gpu import device, gpu_network, layers, pointwise, spatial

pytest.importorskip("triton", reason="the package triton, which PyTorch brings on Linux, is not installed")

from triton import compile as compile_
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# KB of shared memory that a program may have (CUDA C++ Programming Guide, table of technical specifications)
SHARED_LIMITS = {89: 99, 90: 227}
KINDS = {torch.float16: "*fp16", torch.float32: "*fp32"}

Launch = tuple[Any, tuple[tuple[str, str], ...], tuple[tuple[str, Any], ...], int]


class Recorder:
    """In place of a kernel: remembers how it is launched."""

    def __init__(self, kernel: Any, seen: dict[Launch, None]) -> None:
        self.kernel, self.seen = kernel, seen

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, num_warps: int = 4, **constants: Any) -> None:
            kinds, fixed = [], list(constants.items())
            for name, value in zip(self.kernel.arg_names, args, strict=False):
                if value is None:
                    fixed.append((name, None))
                else:
                    kinds.append((name, KINDS[value.dtype] if isinstance(value, Tensor) else "i32"))
            self.seen[self.kernel, tuple(kinds), tuple(fixed), num_warps] = None

        return launch


def launches(name: str, monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """Distinct launches of a preset's network that have products, which is what takes shared memory."""
    seen: dict[Launch, None] = {}
    monkeypatch.setattr(device, "takes_kernels", lambda x: True)
    for module in (pointwise, spatial):
        monkeypatch.setattr(module, "wrap_triton", lambda kernel: Recorder(kernel, seen))
    monkeypatch.setattr(layers.WindowAttention, "forward", lambda _, qkv, gate: qkv[..., : qkv.shape[3] // 3])
    with torch.inference_mode():
        network = gpu_network(build_model(name, 4))
        network.forward(torch.zeros(1, 3, 8, 8))
    return [launch for launch in seen if any("weight" in kind for kind, _ in launch[1])]


@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED_LIMITS)
@pytest.mark.parametrize("name", ["sst-light", "sst-xl-plus", "esc-rib"])
def test_shared_memory(name: str, capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = launches(name, monkeypatch)
    assert found
    for kernel, kinds, fixed, warps in found:
        names = kernel.arg_names
        source = ASTSource(
            fn=kernel,
            signature={key: dict(kinds).get(key, "constexpr") for key in names},
            constexprs=dict(fixed),
            attrs={(names.index(key),): [["tt.divisibility", 16]] for key, _ in kinds},
        )
        compiled = compile_(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
        assert 0 < compiled.metadata.shared <= SHARED_LIMITS[capability] * 1024
