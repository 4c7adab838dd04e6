"""What low precision costs: PSNR on Set5 of the bundled model, and the ranges of the tensors inside the networks.

    python benchmarks/precision.py SET5_DIR [--ranges]

fp16 is run in ONNX Runtime (which rounds only some tensors) and in emulation (every tensor rounded); bf16 in emulation alone.
--ranges prints instead the largest absolute values inside the bundled model on those pictures and on a checkerboard, and inside all
presets with random weights on noise.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flashrib.export.emulate import emulated
from flashrib.export.options import ExportOptions
from flashrib.export.to_onnx import onnx_from_network, save_onnx
from flashrib.model import PRESETS, build_model, load_model
from flashrib.model.deploy import FFN, Attention, Norm
from flashrib.model.fold import fold
from flashrib.model.network import Network
from flashrib.runtime.artifacts.bundled import bundled_model, bundled_weights
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.quality.evaluate import average, evaluate, find_pairs
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession

NAMES = tuple(name for name in PRESETS if name != "sst-real")  # which takes noise as well


def score(path: Path, folder: Path) -> float:
    session = OnnxRuntimeSession(path)
    return average(list(evaluate(session, find_pairs(folder)))).psnr


def print_quality(folder: Path) -> None:
    network = load_model(bundled_weights())
    base = score(bundled_model(), folder)
    print(f"| file | PSNR, dB | drop, dB |\n|---|---|---|\n| fp32 | {base:.3f} | |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.onnx"
        for precision in ("fp16", "bf16"):
            model = onnx_from_network(network, options=ExportOptions(precision=precision))
            files = {f"{precision}, emulated": emulated(model)}
            if precision == "fp16":
                files["fp16, ONNX Runtime"] = model
            for what, file in files.items():
                save_onnx(file, path)
                got = score(path, folder)
                print(f"| {what} | {got:.3f} | {base - got:+.4f} |", flush=True)


def ranges(network: Network, pictures: list[Tensor]) -> dict[str, float]:
    """Largest absolute values in the deployment form of `network`."""
    deployed = fold(network)
    seen: dict[str, float] = {}

    def note(what: str, x: Tensor) -> None:
        seen[what] = max(seen.get(what, 0.0), float(x.abs().max()))

    def hook(what: str, of_input: bool = False) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: note(what, inputs[0] if of_input else output)

    for module in deployed.modules():
        if isinstance(module, Norm):
            module.register_forward_hook(hook("residual stream", of_input=True))
        elif isinstance(module, Attention):
            module.qkv.register_forward_hook(hook("q, k, v"))
            for codes in module.codes():
                note("position codes", codes)
        elif isinstance(module, FFN):
            module.proj.register_forward_hook(hook("hidden layer of an FFN"))
        elif isinstance(module, nn.Conv2d):
            module.register_forward_hook(hook("convolutions"))
    with torch.inference_mode():
        for picture in pictures:
            deployed(picture)
    return seen


def print_ranges(folder: Path) -> None:
    real = [read_picture(low).pixels for low in sorted(folder.glob("*_LR*"))] or [
        read_picture(high).pixels for high in sorted(folder.iterdir())
    ]
    pictures = [torch.from_numpy(p.transpose(2, 0, 1)[None, :3, :160, :160] / np.float32(255)) for p in real]
    board = torch.from_numpy(np.broadcast_to(np.indices((97, 97)).sum(0) % 2, (1, 3, 97, 97)).astype(np.float32))
    noise = torch.rand(1, 3, 97, 97, generator=torch.Generator().manual_seed(0))
    rows = {"sst-light x2, bundled": ranges(load_model(bundled_weights()), [*pictures, board, noise])}
    for name in NAMES:
        torch.manual_seed(0)
        rows[f"{name} x4, random"] = ranges(build_model(name, 4), [noise])
    columns = list(next(iter(rows.values())))
    print("| network | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row.get(column, 0):.1f}" for column in columns) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="NAME_HR.* beside NAME_LR.*")
    parser.add_argument("--ranges", action="store_true")
    arguments = parser.parse_args()
    (print_ranges if arguments.ranges else print_quality)(arguments.folder)


if __name__ == "__main__":
    main()
