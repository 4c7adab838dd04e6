"""The fused kernels: computed on the CPU by Triton's interpreter, in a process of its own; compiled for every capability; run on a GPU.

Triton decides when it is imported whether it interprets kernels, and other tests of the same process compile them.
"""

import os
import subprocess
from typing import Any

import pytest
import torch

from flashrib.model.attention.disc import disc_attention
from flashrib.model.attention.disc.op import launch, launch_hopper, not_supported_by_hopper
from flashrib.model.attention.disc.tuning import TABLE, blocks_for
from tests.model.interpreter import run_interpreted
from tests.official import seeded

pytest.importorskip("triton", reason="the package triton, which PyTorch brings on Linux, is not installed")

# KB of shared memory that a program may have (CUDA C++ Programming Guide, table of technical specifications)
SHARED_LIMITS = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 110: 227, 120: 99}


@pytest.mark.slow
def test_interpreted() -> None:
    run_interpreted("tests/model/attention/disc/interpreted_kernel.py")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [86, 90])
def test_compiles_within_shared_memory(capability: int) -> None:
    from triton import compile as compile_
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from flashrib.model.attention.disc.kernel import disc_attention_kernel as kernel

    blocks = blocks_for(capability, 128, 8)
    constants: dict[str, Any] = {
        "failed": None, "HEADS": 24, "D": 128, "DP": 128, "TY": blocks.tile[0], "TX": blocks.tile[1], "KY": blocks.keys[0],
        "KX": blocks.keys[1], "STAGES": blocks.stages, "PRECISION": "ieee",
    }  # fmt: skip
    kinds = dict.fromkeys(("q", "k", "v", "out"), "*bf16") | dict.fromkeys(("starts", "full", "blocks"), "*i32")
    kinds |= {"scale": "fp32", "lse": "*fp32"}
    signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in kernel.arg_names}
    pointers = ("q", "k", "v", "out", "lse")
    attrs = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attrs)
    options = {"num_warps": blocks.warps, "maxnreg": blocks.registers}
    compiled = compile_(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert compiled.metadata.shared <= SHARED_LIMITS[capability] * 1024


@pytest.mark.slow
def test_hopper_kernel_compiles_and_its_products_overlap() -> None:
    """ptxas waits after each product (its note C7512) if it finds too few registers: half of the speed."""
    from triton import compile as compile_
    from triton.backends.compiler import GPUTarget
    from triton.experimental.gluon._runtime import GluonASTSource
    from triton.experimental.gluon.language import NVMMASharedLayout

    from flashrib.model.attention.disc.hopper import disc_attention_hopper as kernel

    constants = {"HEADS": 24, "D": 128, "STAGES": 5, "REGISTERS": 232}
    kinds = {
        "H": "i32",
        "W": "i32",
        "text": "i32",
        "text_begin": "i32",
        "text_end": "i32",
        "radius": "i32",
        "pooled": "i32",
        "scale": "fp32",
        "out": "*bf16",
        "lse": "*fp32",
    }
    line, area = (NVMMASharedLayout(128, 16, rank) for rank in (3, 4))
    for x in "qkv":
        kinds |= {
            f"{x}_line": f"tensordesc<bf16[1,64,128],{line!r}>",
            f"{x}_area": f"tensordesc<bf16[1,8,8,128],{area!r}>",
        }
    signature = {name: "constexpr" if name in constants else kinds.get(name, "*i32") for name in kernel.arg_names}
    source = GluonASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = compile_(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert compiled.metadata.shared <= SHARED_LIMITS[90] * 1024
    ptxas = pytest.importorskip("triton").knobs.nvidia.ptxas.path
    done = subprocess.run(
        [ptxas, "-v", "--gpu-name", "sm_90a", "-o", os.devnull, "-"],
        input=compiled.asm["ptx"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "C7512" not in done.stderr
    assert " 0 bytes spill stores" in done.stderr


def test_every_capability_has_a_row() -> None:
    assert set(TABLE) == set(SHARED_LIMITS)
    assert blocks_for(103, 128, 8) == blocks_for(100, 128, 8)
    assert blocks_for(90, 128, 8, 4).keys == (4, 4)


def test_why_the_hopper_kernel_is_not_taken() -> None:
    q = torch.zeros(1, 20 + 16, 2, 48)
    reasons = " ".join(not_supported_by_hopper(q, q, q, (4, 4), 20))
    for part in ("compute capability 9.x", "not in torch.float32", "not of 48", "64 text tokens or more, there are 20"):
        assert part in reasons


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["hopper", "hopper-repaired", "triton"])
@pytest.mark.parametrize(
    ("grid", "text", "radius", "pooled", "dim"),
    [((24, 40), 512, 8, 60, 128), ((37, 53), 500, 16, 0, 128), ((20, 12), 64, 40, 0, 64)],
)
def test_on_the_gpu(grid: tuple[int, int], text: int, radius: int, pooled: int, dim: int, form: str) -> None:
    """Error at most that of the definition in bfloat16; logits of `hopper-repaired` leave float16."""
    if form != "triton" and torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("the Hopper kernel needs a GPU of compute capability 9.x")
    repaired = form == "hopper-repaired"
    dtype = torch.float16 if repaired else torch.bfloat16
    n = text + grid[0] * grid[1]
    random = seeded(n)
    sizes = (n, n + pooled, n + pooled)
    q, k, v = (torch.randn(2, size, 3, dim, generator=random).to(dtype).cuda() for size in sizes)
    if repaired:
        q = q * 40
    facts = (grid, text, radius, dim**-0.5, pooled)
    if form == "triton":
        out, lse = launch(q, k, v, *facts)
    elif repaired:
        out, lse = launch_hopper(q, k, v, *facts)
    else:
        out, lse = launch_hopper(q, k, v, *facts, repair=False)
    exact, exact_lse = disc_attention(q.double(), k.double(), v.double(), *facts, form="reference")
    plain, _ = disc_attention(q, k, v, *facts, form="reference")

    def rms(x: torch.Tensor) -> float:
        return (x.double() - exact).pow(2).mean().sqrt().item()

    assert rms(out) <= rms(plain)
    assert (lse.double() - exact_lse).abs().max().item() <= 1e-4 * max(1.0, exact_lse.abs().max().item())
