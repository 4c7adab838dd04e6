"""PTX as TensorRT launches it, and what is refused."""

import re
import types
from typing import Any

import pytest
import triton

from flashrib.export.operators.plugin import ptx as module
from flashrib.export.operators.plugin.ptx import without_triton_parameters
from flashrib.export.operators.window.plugin.compile import compile_kernel
from flashrib.export.operators.window.plugin.layer import Layer
from flashrib.model.attention.window.tuning import Blocks
from flashrib.runtime.errors import FlashribError

LAYER, BLOCKS = Layer((8, 8), 2, 16, 16), Blocks(64, 32, 4, 2)
KINDS = ["u64", "u64", "u64", "u32", "u32", "u64"]

ENTRY = """
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .u64 .ptr .global .align 1 kernel_param_1,
	.param .u64 .ptr .global .align 1 kernel_param_2,
	.param .u32 kernel_param_3,
	.param .u32 kernel_param_4,
	.param .u64 .ptr .global .align 1 kernel_param_5,
	.param .u64 .ptr .global .align 1 kernel_param_6,
	.param .u64 .ptr .global .align 1 kernel_param_7
)
.reqntid 128
{
	ld.param.b64 	%rd1, [kernel_param_0];
	ret;
}
"""


def test_triton_parameters_are_taken_out() -> None:
    text = without_triton_parameters(ENTRY, KINDS)
    assert re.findall(r"kernel_param_\d", text) == [f"kernel_param_{i}" for i in (0, 1, 2, 3, 4, 5, 0)]
    assert text.endswith(ENTRY[ENTRY.index("\n)\n.reqntid") :])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("[kernel_param_0]", "[kernel_param_6]"), "reads kernel_param_6"),
        (("[kernel_param_0]", "[kernel_param_7+8]"), "reads kernel_param_7"),
        ((",\n\t.param .u64 .ptr .global .align 1 kernel_param_7", ""), "has the parameters"),
        ((".u32 kernel_param_4", ".u64 kernel_param_4"), "has the parameters"),
        ((".visible .entry", ".visible .func"), "has the parameters"),
    ],
    ids=["global-scratch", "profile-scratch", "fewer", "others", "no-entry"],
)
def test_parameters_that_are_refused(change: tuple[str, str], says: str) -> None:
    assert change[0] in ENTRY
    with pytest.raises(FlashribError, match=says):
        without_triton_parameters(ENTRY.replace(*change), KINDS)


def compiled(**metadata: Any) -> types.SimpleNamespace:
    values = {"global_scratch_size": 0, "profile_scratch_size": 0, "name": "kernel", "shared": 0, "num_warps": 4}
    return types.SimpleNamespace(metadata=types.SimpleNamespace(**(values | metadata)), asm={"ptx": ENTRY})


@pytest.mark.parametrize("scratch", [{"global_scratch_size": 128}, {"profile_scratch_size": 64}], ids=str)
def test_scratch_memory_is_refused(scratch: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.triton, "compile", lambda *_, **__: compiled(**scratch))
    with pytest.raises(FlashribError, match=r"needs \d+ and \d+ bytes of scratch memory, .* use --attention native"):
        compile_kernel.__wrapped__(LAYER, 90, BLOCKS)


def test_what_triton_cannot_compile(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton prints the whole PTX when its assembler fails; none of it may reach standard output."""

    def fail(*_: Any, **__: Any) -> None:
        print(ENTRY)
        raise RuntimeError("ptxas failed\nwith error code 255")

    monkeypatch.setattr(module.triton, "compile", fail)
    says = rf"window 8x8, sm_90\) cannot be compiled by Triton {triton.__version__}: ptxas failed with error code 255"
    with pytest.raises(FlashribError, match=says):
        compile_kernel.__wrapped__(LAYER, 90, BLOCKS)
    assert capsys.readouterr().out == ""
