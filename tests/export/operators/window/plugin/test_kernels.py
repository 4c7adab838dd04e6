"""Layers of every preset, compiled and assembled for every compute capability: nothing spills, everything fits.

`docs/notes/plugin_kernels.md` records the same figures of all of them; what is compiled here is compared, so it cannot go stale.
Capabilities 8.6, 8.7 and 8.9 get the PTX of 8.0, which one test shows, so theirs is only assembled. The kernels in bf16 are the same up
to the type: their figures are in the record, and here are the layers with the widest and the narrowest heads.
"""

import dataclasses
import re
from collections.abc import Iterator

import pytest
import triton

from benchmarks.plugin_kernels import (
    SAME_PTX,
    SHARED_LIMITS,
    Resources,
    assembler,
    compiled,
    label,
    preset_layers,
    resources,
)
from flashrib.export.operators.plugin.ptx import Kernel
from flashrib.export.operators.window.plugin.layer import Layer, tactics
from flashrib.model.attention.window.tuning import CAPABILITIES
from tests.places import ROOT

RECORD = (ROOT / "docs" / "notes" / "plugin_kernels.md").read_text()
COMPILED = [capability for capability in CAPABILITIES if capability not in SAME_PTX]
BF16 = [Layer((96, 96), 6, 30, 34, dtype="bf16"), Layer((8, 8), 3, 16, 16, dtype="bf16")]


def recorded(dtype: str) -> dict[tuple[str, int], str]:
    """The cells of the table of `dtype`, by layer and capability."""
    table = RECORD.split(f"## {dtype}\n")[1].split("\n## ")[0]
    rows = [line.strip("| \n").split(" | ") for line in table.splitlines() if re.match(r"\| \d+x", line)]
    return {
        (row[0], capability): cell for row in rows for capability, cell in zip(CAPABILITIES, row[2:-1], strict=True)
    }


def cases() -> Iterator[tuple[Layer, int]]:
    for capability in COMPILED:
        for layer in (*preset_layers(), *BF16):
            # One capability gets all layers, the others those of the narrowest and widest windows of each width. Heads only scale
            # strides and offsets.
            if capability == 90 or (layer.heads != 7 and layer.window in ((8, 8), (16, 16), (96, 96))):
                yield layer, capability


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "capability"),
    list(cases()),
    ids=lambda value: f"{label(value)}, {value.dtype}" if isinstance(value, Layer) else f"sm_{value}",
)
def test_resources(layer: Layer, capability: int) -> None:
    if assembler(capability) is None:
        pytest.skip("the assembler of CUDA 13 is not at hand: pip install nvidia-cuda-nvcc")
    kernel = compiled(layer, capability, tactics(layer, capability)[0])
    for target in (capability, *(other for other, same in SAME_PTX.items() if same == capability)):
        found = resources(retargeted(kernel, capability, target), target)
        assert found.spilled == 0
        assert found.shared <= SHARED_LIMITS[target] * 1024
        # Another version of Triton, or of the assembler, numbers registers otherwise.
        if f"Triton {triton.__version__}." in RECORD and target != 110:
            assert recorded(layer.dtype)[label(layer), target] == str(found)


def retargeted(kernel: Kernel, capability: int, target: int) -> Kernel:
    return dataclasses.replace(kernel, ptx=kernel.ptx.replace(f".target sm_{capability}\n", f".target sm_{target}\n"))


@pytest.mark.parametrize(("target", "same"), SAME_PTX.items())
def test_capabilities_with_the_same_ptx(target: int, same: int) -> None:
    layer = Layer((96, 96), 6, 30, 34)
    assert tactics(layer, target) == tactics(layer, same)
    kernels = [compiled(layer, capability, tactics(layer, capability)[0]) for capability in (target, same)]
    assert kernels[0] == retargeted(kernels[1], same, target)


def test_every_capability_has_a_limit() -> None:
    assert tuple(SHARED_LIMITS) == CAPABILITIES


def test_spills_are_seen() -> None:
    """A kernel that may not use the registers that it needs."""
    layer = Layer((96, 96), 6, 30, 34)
    blocks = dataclasses.replace(tactics(layer, 80)[0], registers=40)
    found = resources(compiled(layer, 80, blocks), 80)
    assert found.spilled > 0
    assert "spills" in str(found)
    assert str(Resources(96, 0, 14336)) == "96 / 14"
