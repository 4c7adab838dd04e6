"""The offset attention as a plugin: its PTX, its launch, and what NVIDIA's framework finds out about it."""

import ctypes
import json
import os
import re
import subprocess
import sys

import pytest
import torch

from flashrib.export.operators.offset.plugin.layer import Layer, compile_kernel, launch, layer_of_shapes, tactics
from flashrib.model.attention.fibonacci import offset_attention
from flashrib.model.attention.fibonacci.offsets import head_offsets, pack_offsets
from flashrib.runtime.errors import UsageError
from tests.places import ROOT, SHARED

TOOL = SHARED / "tools" / "tensorrt_registration.py"
SCRIPT = ROOT / "tests" / "export" / "operators" / "offset" / "plugin" / "driven.py"


@pytest.mark.parametrize("zero_logit", [False, True])
@pytest.mark.parametrize(("capability", "target"), [(80, "sm_80"), (90, "sm_90a"), (120, "sm_120a")])
def test_ptx(capability: int, target: str, zero_logit: bool) -> None:
    layer = Layer(3, 64, 5, zero_logit)
    kernel = compile_kernel(layer, capability, tactics(layer)[0])
    assert f".target {target}\n" in kernel.ptx
    assert re.findall(r"\.param \.(u\d\d)", kernel.ptx) == ["u64", "u64", "u32", "u32", "u64"]
    assert kernel.shared <= 48 << 10


def test_launch() -> None:
    layer = Layer(12, 64, 4, False)
    tiles = tactics(layer)[0]
    how = launch(layer, tiles, compile_kernel(layer, 90, tiles), 2, 197)
    span = tiles.queries * tiles.blocks
    assert how.grid == 2 * 12 * (-(-196 // span) + 1)
    assert how.extra == (197, span)


@pytest.mark.parametrize(
    ("qkv", "offsets", "dtype"),
    [((1, 5, 10), (3, 1), "fp16"), ((1, 5, 9), (2, 1), "fp16"), ((1, 5, 9), (3, 1), "fp32")],
)
def test_refused(qkv: tuple[int, ...], offsets: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(UsageError):
        layer_of_shapes(qkv, offsets, 3, 0, dtype)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("checks", [("masks", "types", "mixed_types"), ("model",)], ids=" ".join)
def test_framework(checks: tuple[str, ...]) -> None:
    if not TOOL.is_file():
        pytest.skip(f"the stand-in for TensorRT's library is not at hand: {TOOL}")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, str(TOOL), str(SCRIPT), *checks],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    if "No matching distribution" in result.stderr or "CalledProcessError" in result.stderr:
        pytest.skip("the wheels of the stand-in cannot be installed here")
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout.splitlines()[-1]) == list(checks)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["neg_inf", "zero_logit"])
@pytest.mark.parametrize("tokens", [197, 577])
def test_kernel_as_tensorrt_launches_it(tokens: int, mode: str) -> None:
    """The PTX through the driver's own API, every tactic."""
    heads, size = 3, 64
    offsets = pack_offsets(head_offsets(tokens - 1, heads, 1, "depth", "modified"), tokens - 1).cuda()
    layer = Layer(heads, size, offsets.shape[1], mode == "zero_logit")
    qkv = torch.randn(2, tokens, 3 * heads * size, generator=torch.Generator().manual_seed(0)).cuda().half()
    qkv[..., : heads * size] *= 0.125
    wanted = offset_attention(qkv.double(), offsets, heads, mode, form="reference")
    major, minor = torch.cuda.get_device_capability()
    driver = ctypes.CDLL("libcuda.so.1")
    for tiles in tactics(layer):
        kernel = compile_kernel(layer, 10 * major + minor, tiles)
        how = launch(layer, tiles, kernel, 2, tokens)
        out = torch.full((2, tokens, heads * size), torch.nan, device="cuda", dtype=torch.float16)
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        assert driver.cuModuleLoadData(ctypes.byref(module), kernel.ptx.encode()) == 0
        assert driver.cuModuleGetFunction(ctypes.byref(function), module, kernel.name.encode()) == 0
        values = [ctypes.c_uint64(qkv.data_ptr()), ctypes.c_uint64(offsets.data_ptr())]
        values += [ctypes.c_uint32(number) for number in how.extra] + [ctypes.c_uint64(out.data_ptr())]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in values))
        torch.cuda.synchronize()
        launched = driver.cuLaunchKernel(function, how.grid, 1, 1, how.threads, 1, 1, how.shared, None, pointers, None)
        assert launched == 0
        torch.cuda.synchronize()
        error = (out.double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
        assert error <= 1e-3
