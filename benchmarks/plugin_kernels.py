"""Registers, spills and shared memory of the TensorRT plugin's kernels: every layer of the presets, every compute capability.

python benchmarks/plugin_kernels.py > docs/notes/plugin_kernels.md      # about 6 minutes on one core; no GPU

Compiles the first tactic of each layer, the blocks that `flashrib.model.attention.window.tuning` chooses, and assembles exactly the PTX
that TensorRT gets. For compute capability 11.0 it takes an assembler of CUDA 13 (`pip install nvidia-cuda-nvcc`): the one that
Triton 3.6 brings does not know it.
"""

import dataclasses
import functools
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import triton

from flashrib.export.operators.plugin.ptx import Kernel
from flashrib.export.operators.window.plugin.compile import compile_kernel
from flashrib.export.operators.window.plugin.layer import DTYPES, Layer, tactics
from flashrib.model import PRESETS, preset
from flashrib.model.attention.window.tuning import CAPABILITIES, Blocks, blocks_for
from flashrib.model.config import UpscalerConfig

# Most shared memory of a block in KB: CUDA C++ Programming Guide, "Technical specifications per compute capability".
SHARED_LIMITS = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 110: 227, 120: 99}
SAME_PTX = {86: 80, 87: 80, 89: 80}  # up to the line that names the target; a test compares them

NAMES = tuple(name for name in PRESETS if name != "sst-real")  # which takes noise as well
HEAD = """\
# Kernels of the TensorRT plugin

Written by `python benchmarks/plugin_kernels.py > docs/notes/plugin_kernels.md` with Triton {triton}. **Nothing here was run**: the PTX that
TensorRT gets was assembled by NVIDIA's ptxas ({ptxas}); the driver that loads an engine assembles it again, in its own version.

Each cell: registers of a thread / KB of shared memory of a block, for the blocks that `model/attention/window/tuning.py` chooses (last
table). Nothing spills. Where the tuning table limits the registers, which was measured to be faster for some layers, the plugin offers the
same blocks with and without the limit; the columns are without, and one more column tells what is spilled with it.
"""


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a kernel takes: registers of a thread, bytes of spilled registers, bytes of dynamic shared memory of a block."""

    registers: int
    spilled: int
    shared: int

    def __str__(self) -> str:
        spilled = f", spills {self.spilled} B" if self.spilled else ""
        return f"{self.registers} / {self.shared / 1024:.0f}{spilled}"


@functools.cache
def preset_layers() -> dict[Layer, tuple[str, ...]]:
    """Return the distinct attention layers of the presets, in fp16, and the presets that have them."""
    found: dict[Layer, tuple[str, ...]] = {}
    for name in NAMES:
        config = preset(name)
        assert isinstance(config, UpscalerConfig)
        for a in config.attentions:
            layer = Layer(a.window, a.heads, a.head_dim, a.rank, a.shift)
            found[layer] = tuple(dict.fromkeys((*found.get(layer, ()), name)))
    return dict(sorted(found.items(), key=lambda item: dataclasses.astuple(item[0])))


def limited(layer: Layer) -> str:
    """Return what the kernel for 9.0 takes with the limit of registers of the tuning table."""
    blocks = blocks_for(90, layer.head_dim, layer.rank, layer.tokens)
    return str(resources(compiled(layer, 90, blocks), 90)) if blocks.registers else "no limit"


def compiled(layer: Layer, capability: int, blocks: Blocks) -> Kernel:
    """Compile a layer, with the assembler that knows the capability."""
    with mock.patch.dict(os.environ, {"TRITON_PTXAS_BLACKWELL_PATH": str(assembler(capability))}):
        return compile_kernel(layer, capability, blocks)


def assembler(capability: int) -> Path | None:
    """Return the ptxas for a capability, or None where there is none: Triton's own, for 11.0 that of the wheel nvidia-cuda-nvcc."""
    if capability != 110:
        tools = triton.knobs.nvidia
        return Path((tools.ptxas_blackwell if capability >= 100 else tools.ptxas).path)
    found = importlib.util.find_spec("nvidia")
    folders = list(found.submodule_search_locations or ()) if found else []
    return next((path for folder in folders if (path := Path(folder) / "cu13" / "bin" / "ptxas").is_file()), None)


def resources(kernel: Kernel, capability: int) -> Resources:
    """Assemble a kernel and return what it takes."""
    suffix = "a" if capability >= 90 else ""  # Triton's targets: features of one capability alone
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(kernel.ptx)
        command = [
            assembler(capability),
            "-v",
            f"--gpu-name=sm_{capability}{suffix}",
            source,
            "-o",
            Path(folder, "cubin"),
        ]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilled = (
        re.search(pattern, report) for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores")
    )
    assert registers is not None
    assert spilled is not None
    return Resources(int(registers[1]), int(spilled[1]), kernel.shared)


def main() -> None:
    """Print the page."""
    versions = [
        subprocess.run([assembler(c), "--version"], capture_output=True, text=True).stdout for c in (80, 100, 110)
    ]
    numbers = [match[1] for text in versions if (match := re.search(r"release ([\d.]+)", text))]
    print(
        HEAD.format(
            triton=triton.__version__,
            ptxas=f"CUDA {numbers[0]}; {numbers[1]} for sm_100 and sm_120; {numbers[2]} for sm_110",
        )
    )
    columns = " | ".join(f"sm_{capability}" for capability in CAPABILITIES)
    for dtype in DTYPES:
        print(
            f"## {dtype}\n\n| window, heads, D, R | presets | {columns} | sm_90, limited |\n|---|---|{'---|' * len(CAPABILITIES)}---|"
        )
        for layer, names in preset_layers().items():
            typed = dataclasses.replace(layer, dtype=dtype)
            cells = []
            for capability in CAPABILITIES:
                kernel = compiled(typed, capability, tactics(typed, capability)[0])
                cells.append(str(resources(kernel, capability)))
            print(f"| {label(layer)} | {', '.join(names)} | {' | '.join(cells)} | {limited(typed)} |", flush=True)
            print(label(layer), dtype, file=sys.stderr)
        print()
    print(
        f"## Blocks\n\nQueries x keys, warps, blocks in flight, limit of registers, for the largest rank.\n\n| window, D | {columns} |"
    )
    print(f"|---|{'---|' * len(CAPABILITIES)}")
    for window, head_dim in sorted({(layer.window, layer.head_dim) for layer in preset_layers()}):
        rank = max(layer.rank for layer in preset_layers() if (layer.window, layer.head_dim) == (window, head_dim))
        chosen = [blocks_for(capability, head_dim, rank, window[0] * window[1]) for capability in CAPABILITIES]
        print(f"| {window[0]}x{window[1]}, {head_dim} | {' | '.join(_text(blocks) for blocks in chosen)} |")


def label(layer: Layer) -> str:
    """Return the name of a layer in the table."""
    return f"{layer.window[0]}x{layer.window[1]}, {layer.heads}, {layer.head_dim}, {layer.rank}"


def _text(blocks: Blocks) -> str:
    limit = f", {blocks.registers}" if blocks.registers else ""
    return f"{blocks.queries}x{blocks.keys}, {blocks.warps}, {blocks.stages}{limit}"


if __name__ == "__main__":
    main()
