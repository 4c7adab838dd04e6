"""The window attention's kernel as PTX."""

import re

import pytest

from flashrib.export.operators.window.plugin.compile import compile_kernel
from flashrib.export.operators.window.plugin.layer import Layer
from flashrib.model.attention.window.tuning import Blocks
from tests.places import ROOT

LAYER, BLOCKS = Layer((8, 8), 2, 16, 16), Blocks(64, 32, 4, 2)


@pytest.mark.parametrize(
    ("capability", "target", "version"), [(80, "sm_80", "8.0"), (90, "sm_90a", "8.0"), (120, "sm_120a", "8.7")]
)
def test_kernel(capability: int, target: str, version: str) -> None:
    kernel = compile_kernel(LAYER, capability, BLOCKS)
    assert f".target {target}\n" in kernel.ptx
    assert f".version {version}\n" in kernel.ptx
    assert f".visible .entry {kernel.name}(" in kernel.ptx
    assert len(re.findall(r"\.param \.u(?:64|32)", kernel.ptx)) == 6
    assert f".reqntid {32 * kernel.warps}" in kernel.ptx
    assert kernel.warps == BLOCKS.warps
    assert 0 < kernel.shared <= 48 << 10


def test_nothing_tells_where_it_was_compiled() -> None:
    ptx = compile_kernel(LAYER, 90, BLOCKS).ptx
    assert str(ROOT) not in ptx
    assert ".loc" not in ptx
    assert ".file" not in ptx


def test_a_kernel_is_compiled_once() -> None:
    assert compile_kernel(LAYER, 90, BLOCKS) is compile_kernel(Layer((8, 8), 2, 16, 16), 90, BLOCKS)


def test_limit_of_registers() -> None:
    assert ".maxnreg 64" in compile_kernel(LAYER, 90, Blocks(64, 32, 4, 2, 64)).ptx
