"""CPU: ours in ONNX Runtime against the official data flow in PyTorch, side by side in one run.

    python benchmarks/cpu.py [--rounds 3] [--threads 2] [--cases sst-light:2:256 ...] [--bf16]

Each measurement is a process of its own (so that peak memory means something), ours and the rival's in turn (so that a machine whose
speed drifts is fair to both); each process runs once to warm up and then twice. Prints medians, ratios and peak resident memory.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

CASES = ("sst-light:2:256", "sst-light-plus:4:192", "esc-rib:4:128")
RUNS = 2


def measure_ours(path: str, side: int, threads: int) -> dict[str, Any]:
    """Run the exported file through our session; neither torch nor onnx is imported."""
    from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession

    session = OnnxRuntimeSession(path, threads=threads)
    batch = np.load(Path(path).with_name("input.npy"))
    return measure(lambda: session.run(batch), Path(path).with_name("ours.npy"))


def measure_rival(path: str, side: int, threads: int, bf16: bool) -> dict[str, Any]:
    """Run the official data flow in PyTorch, with the same weights."""
    import torch
    from official_flow import official_flow

    from flashrib.model import load_model

    torch.set_num_threads(threads)
    checkpoint = Path(path).with_name("weights.safetensors")
    network = official_flow(load_model(checkpoint), torch.bfloat16 if bf16 else None)
    picture = torch.from_numpy(np.load(Path(path).with_name("input.npy")))
    with torch.inference_mode():
        return measure(lambda: network.upscale(picture).numpy(), Path(path).with_name("rival.npy"))


def measure(run: Any, save: Path) -> dict[str, Any]:
    np.save(save, run())
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    # Not getrusage: its peak starts at what the parent process had when it forked.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"seconds": seconds, "peak_mb": int(status["VmHWM"].split()[0]) / 1024}


def prepare(folder: Path, name: str, scale: int, side: int) -> Path:
    """Write weights, ONNX file and input of one case."""
    import torch

    from flashrib.export.to_onnx import onnx_from_network, save_onnx
    from flashrib.model import build_model
    from flashrib.model.checkpoint import save_safetensors

    torch.manual_seed(0)
    network = build_model(name, scale)
    save_safetensors(folder / "weights.safetensors", network)
    save_onnx(onnx_from_network(network), folder / "model.onnx")
    np.save(folder / "input.npy", np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32))
    return folder / "model.onnx"


def child(what: str, path: Path, side: int, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", what, "--path", str(path), "--side", str(side)]
    command += ["--threads", str(arguments.threads)] + (["--bf16"] if arguments.bf16 else [])
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes per side (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", default=CASES, help="ARCHITECTURE:SCALE:SIDE")
    parser.add_argument(
        "--bf16", action="store_true", help="the rival rounds q, k, v to bfloat16, as the official code does"
    )
    parser.add_argument("--child", choices=("ours", "rival"), help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child == "ours":
        print(json.dumps(measure_ours(arguments.path, arguments.side, arguments.threads)))
        return
    if arguments.child == "rival":
        print(json.dumps(measure_rival(arguments.path, arguments.side, arguments.threads, arguments.bf16)))
        return
    print(f"{platform.machine()}, {arguments.threads} threads, {arguments.rounds} rounds of {RUNS} runs")
    print("| case | ours, s | rival, s | ratio | ours, peak MB | rival, peak MB | max abs difference |")
    print("|---|---|---|---|---|---|---|")
    for case in arguments.cases:
        name, scale, side = case.split(":")
        with tempfile.TemporaryDirectory() as folder:
            path = prepare(Path(folder), name, int(scale), int(side))
            ours, rival = [], []
            for _ in range(arguments.rounds):
                ours.append(child("ours", path, int(side), arguments))
                rival.append(child("rival", path, int(side), arguments))
            difference = np.abs(np.load(Path(folder) / "ours.npy") - np.load(Path(folder) / "rival.npy")).max()
        medians = [statistics.median(s for r in results for s in r["seconds"]) for results in (ours, rival)]
        peaks = [max(r["peak_mb"] for r in results) for results in (ours, rival)]
        print(
            f"| {name} x{scale}, {side}x{side} | {medians[0]:.2f} | {medians[1]:.2f} | {medians[1] / medians[0]:.2f} |"
            f" {peaks[0]:.0f} | {peaks[1]:.0f} | {difference:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
