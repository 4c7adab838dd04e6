"""The PTX that TensorRT gets, loaded and launched through the CUDA driver exactly as TensorRT is told to.

`test_registration.py` shows that NVIDIA's framework gets the same PTX, grid and arguments from the plugin.
"""

import ctypes
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from benchmarks.plugin_kernels import preset_layers
from flashrib.export.operators.plugin.launch import Launch
from flashrib.export.operators.plugin.ptx import Kernel
from flashrib.export.operators.window.plugin.compile import compile_kernel
from flashrib.export.operators.window.plugin.launch import launch
from flashrib.export.operators.window.plugin.layer import DTYPES, Layer, tactics
from flashrib.model.attention.window import window_attention
from flashrib.runtime.nvidia.cuda import Driver
from tests.official import seeded

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

# The widest and the narrowest heads, an odd number of them, every window; one that is rolled and oblong. Batch, height and width: no
# multiples of the window, the smallest that the kernel takes, and whole windows.
CASES = {
    "sst-light-8": (Layer((8, 8), 3, 16, 16), (2, 37, 53)),
    "sst-light-64": (Layer((64, 64), 3, 16, 24), (1, 130, 97)),
    "sst-16": (Layer((16, 16), 6, 30, 18), (2, 61, 47)),
    "sst-64": (Layer((64, 64), 6, 30, 34), (1, 33, 63)),
    "sst-plus-96": (Layer((96, 96), 6, 30, 34), (1, 131, 96)),
    "sst-large-plus-48": (Layer((48, 48), 6, 32, 32), (1, 97, 144)),
    "sst-xl-plus-32": (Layer((32, 32), 7, 32, 16), (3, 65, 96)),
    "esc-rib": (Layer((64, 64), 4, 16, 16), (1, 128, 64)),
    "oblong-shifted": (Layer((12, 20), 2, 24, 7, (6, 10)), (2, 31, 45)),
}


def capability() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


@pytest.fixture
def context() -> Iterator[None]:
    """The driver's calls go to the context that PyTorch uses."""
    torch.zeros(1, device="cuda")
    yield
    torch.cuda.synchronize()


def run(kernel: Kernel, how: Launch, inputs: list[Tensor], out: Tensor) -> None:
    """Launch as TensorRT does: input tensors, extra integers, output tensors."""
    driver, module, function = Driver(), ctypes.c_void_p(), ctypes.c_void_p()
    driver.call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(kernel.ptx.encode()))
    driver.call("cuModuleGetFunction", ctypes.byref(function), module, ctypes.c_char_p(kernel.name.encode()))
    driver.call("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED, how.shared)
    values = [
        *(ctypes.c_uint64(tensor.data_ptr()) for tensor in inputs),
        *(ctypes.c_int32(number) for number in how.extra),
        ctypes.c_uint64(out.data_ptr()),
    ]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    driver.call("cuLaunchKernel", function, how.grid, 1, 1, how.threads, 1, 1, how.shared, stream, pointers, None)
    torch.cuda.synchronize()
    driver.call("cuModuleUnload", module)


def errors(layer: Layer, size: tuple[int, int, int], choice: int) -> tuple[float, float]:
    """Errors of the plugin and of the plain definition in its dtype, as ratios of the RMS of the definition in float64."""
    dtype, random = TYPES[layer.dtype], seeded(sum(size) + choice)
    qkv = torch.randn(*size, 3 * layer.heads * layer.head_dim, generator=random)
    pos_q, pos_k = (torch.randn(layer.heads, layer.tokens, layer.rank, generator=random) for _ in range(2))
    qkv[..., : layer.heads * layer.head_dim] *= layer.head_dim**-0.5
    inputs = [tensor.to("cuda", dtype).contiguous() for tensor in (qkv, pos_q * layer.rank**-0.5, pos_k)]
    out = torch.full((*size, layer.heads * layer.head_dim), float("nan"), dtype=dtype, device="cuda")
    blocks = tactics(layer, capability())[choice]
    kernel = compile_kernel(layer, capability(), blocks)
    run(kernel, launch(layer, blocks, kernel, *size), inputs, out)

    how = (layer.window, layer.heads, layer.shift)
    exact = window_attention(*(tensor.double() for tensor in inputs), *how, form="reference")
    plain = window_attention(*inputs, *how, form="reference").double()
    rms = exact.square().mean().sqrt()
    ours, theirs = ((found - exact).square().mean().sqrt().item() / rms.item() for found in (out.double(), plain))
    return ours, theirs


@pytest.mark.gpu
@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_what_tensorrt_launches(case: str, dtype: str) -> None:
    """Error at most twice that of PyTorch's plain operators in the same dtype, plus a rounding floor."""
    layer, size = CASES[case]
    layer = Layer(layer.window, layer.heads, layer.head_dim, layer.rank, layer.shift, dtype)
    for choice in range(len(tactics(layer, capability())) if dtype == "fp16" else 1):
        ours, allowed = errors(layer, size, choice)
        print(f"{case} {dtype} tactic {choice + 1}: {ours:.2e}, PyTorch {allowed:.2e}")
        assert ours <= 2 * allowed + torch.finfo(TYPES[dtype]).eps


def test_the_cases_are_layers_of_the_presets() -> None:
    named = {case: layer for case, (layer, _) in CASES.items() if case != "oblong-shifted"}
    assert set(named.values()) <= set(preset_layers())
    assert all(case.removesuffix(f"-{layer.window[0]}") in preset_layers()[layer] for case, layer in named.items())
