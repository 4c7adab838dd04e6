"""The machine code of the kernel for Hopper, whose assembler makes wrong code of some loops; no GPU needed."""

import pytest

from flashrib.model.attention.window.tuning import blocks_for, power_of_two, repeat_stages
from tests.sass import disassembled, read_before_written

pytest.importorskip("triton", reason="the package triton, which PyTorch brings on Linux, is not installed")

from triton import compile as compile_
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from flashrib.model.attention.window.kernel import window_attention_kernel as kernel

WRONG = """
        /*2950*/                   UIADD3 UR4, UR7, 0x10, URZ ;
        /*2960*/                   UIADD3 UR31, UP0, UR31, 0x20, URZ ;
        /*2970*/              @!P0 HGMMA.64x16x16.F32 R56, R28, gdesc[UR20].tnspB, R56, gsb0 ;
"""
RIGHT = """
        /*2930*/                   S2UR UR7, SR_CgaCtaId ;
        /*2940*/                   ULDC.64 UR22, c[0x0][0x220] ;
        /*2950*/                   UIADD3.64 UR20, UR22, 0x20, URZ ;
        /*2960*/                   UIMAD.WIDE.U32 UR4, UR7, 0x30, UR20 ;
        /*2970*/                   HGMMA.64x16x16.F32 R56, gdesc[UR20], R56, gsb0 ;
"""


def test_what_is_found() -> None:
    assert [line.split()[0] for line in read_before_written(WRONG)] == ["UIADD3", "UIADD3", "HGMMA.64x16x16.F32"]
    assert not read_before_written(RIGHT)


@pytest.mark.slow
@pytest.mark.parametrize("shifted", [False, True], ids=["", "shifted"])
@pytest.mark.parametrize("case", [(16, 24, 32), (16, 32, 64)], ids=str)
def test_registers_are_written_before_they_are_read(case: tuple[int, int, int], shifted: bool) -> None:
    """Cases of which the assembler made wrong code while the second loop had one stage: it read outside of shared memory."""
    head_dim, rank, side = case
    blocks = blocks_for(90, head_dim, rank, side * side)
    shift = side // 2 if shifted else 0
    constants = {
        "lse": None, "HEADS": 3, "D": head_dim, "R": rank, "WH": side, "WW": side, "SHIFT_H": shift, "SHIFT_W": shift,
        "DP": power_of_two(head_dim), "RP": power_of_two(rank), "BM": blocks.queries, "BN": blocks.keys, "STAGES": blocks.stages,
        "REPEAT_STAGES": repeat_stages(90),
        "TINY": False, "SHARED": False, "PRECISION": "tf32x3",
    }  # fmt: skip
    kinds = dict.fromkeys(("qkv", "pos_q", "pos_k", "gate", "out"), "*fp16")
    kinds |= dict.fromkeys(("qkv_bias", "gate_bias"), "*fp32") | {"H": "i32", "W": "i32"}
    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={name: kinds.get(name, "constexpr") for name in names},
        constexprs=constants,
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name, kind in kinds.items() if kind[0] == "*"},
    )
    options = {"num_warps": blocks.warps, "maxnreg": blocks.registers}
    compiled = compile_(source, target=GPUTarget("cuda", 90, 32), options=options)
    text = disassembled(compiled.asm["cubin"], knobs.nvidia.nvdisasm.path)
    assert text.count("HGMMA") >= 8
    assert read_before_written(text) == []
