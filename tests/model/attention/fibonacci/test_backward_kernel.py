"""The kernels of the backward pass compile for GPUs that are not here, within their shared memory; no GPU needed."""

import pytest

from flashrib.model.attention.fibonacci.tuning import BACKWARD_WARPS, backward_rows, power_of_two
from tests.sass import disassembled, read_before_written

pytest.importorskip("triton", reason="the package triton, which PyTorch brings on Linux, is not installed")

from triton import compile as compile_
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from flashrib.model.attention.fibonacci.backward_kernel import patches_kernel, prepare_kernel

SHARED_LIMITS = {80: 163, 90: 227}  # KB of a program
KERNELS = {"prepare": prepare_kernel, "patches": patches_kernel}


@pytest.mark.slow
@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("zero_logit", [False, True], ids=["neg_inf", "zero_logit"])
@pytest.mark.parametrize("capability", SHARED_LIMITS)
@pytest.mark.parametrize("name", KERNELS)
def test_compiles(name: str, capability: int, zero_logit: bool, head_dim: int) -> None:
    kernel = KERNELS[name]
    names = kernel.arg_names
    rows = backward_rows(1025, head_dim)[name == "patches"]
    constants = {"HEADS": 3, "D": head_dim, "DP": power_of_two(head_dim), "M": 7, "MP": 8, "BM": rows}
    kinds = dict.fromkeys(("qkv", "grad", "out", "d_qkv"), "*fp16") | {"offsets": "*i32", "tokens": "i32"}
    kinds |= dict.fromkeys(("lse", "delta", "d_class"), "*fp32")
    if zero_logit:
        kinds |= dict.fromkeys(("rest", "rests"), "*fp32")
    source = ASTSource(
        fn=kernel,
        signature={name: kinds.get(name, "constexpr") for name in names},
        constexprs={name: constants.get(name) for name in names if name not in kinds},
        attrs={(names.index(x),): [["tt.divisibility", 16]] for x in kinds if x in names and kinds[x][0] == "*"},
    )
    compiled = compile_(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": BACKWARD_WARPS})
    assert 0 < compiled.metadata.shared <= SHARED_LIMITS[capability] * 1024
    text = disassembled(compiled.asm["cubin"], knobs.nvidia.nvdisasm.path)
    assert "EXIT" in text
    assert read_before_written(text) == []
