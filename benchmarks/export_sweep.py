"""Exports every preset at every scale, in fp32 and fp16, with random weights: `python benchmarks/export_sweep.py [--only NAME ...]`.

Each export is a process of its own (so that peak memory means something) and does what `flashrib export` does: write, check validity
and strict shape inference, compare ONNX Runtime with PyTorch in float32. Prints a table, and exits with 1 where an export failed or
took more than 90 s or 4 GB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MOST_SECONDS, MOST_MB = 90, 4096
PRESETS = ("sst-light", "sst-light-plus", "sst", "sst-plus", "sst-large", "sst-large-plus", "sst-xl-plus", "esc-rib")
PRECISIONS = ("fp32", "fp16")


def export(name: str, scale: int, precision: str) -> dict[str, Any]:
    """Export one network in this process."""
    import torch

    from flashrib.export.options import ExportOptions
    from flashrib.export.to_file import export_file
    from flashrib.model import build_model

    torch.manual_seed(0)
    network = build_model(name, scale)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        report = export_file(network, path, ExportOptions(precision=precision))
        size = path.stat().st_size
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        **report.to_dict(),
        "file_bytes": size,
        "cpu": time.process_time(),
        "peak_mb": int(status["VmHWM"].split()[0]) / 1024,
    }


def export_in_child(name: str, scale: int, precision: str) -> dict[str, Any]:
    """Export one network in a process of its own; its `error` where it failed."""
    command = [sys.executable, __file__, "--child", name, str(scale), precision]
    start = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True)
    wall = {"wall": time.perf_counter() - start}  # with the import of torch, as a user waits for it
    if result.returncode:
        return {"error": (result.stderr.strip().splitlines() or ["no message"])[-1], **wall}
    return {**json.loads(result.stdout.splitlines()[-1]), **wall}


def row(name: str, scale: int, precision: str, result: dict[str, Any]) -> str:
    """A line of the table."""
    start = f"| {name} x{scale} | {precision} | {result['wall']:.0f} |"
    if "error" in result:
        return f"{start} failed: {result['error']} |"
    worst = max(result["checks"], key=lambda check: check["rms_ratio"])
    return (
        f"{start} {result['cpu']:.0f} | {result['peak_mb']:.0f} | {result['nodes_traced']} -> {result['nodes']} |"
        f" {result['file_bytes'] / 1e6:.1f} | {worst['max_abs']:.1e} | {worst['rms_ratio']:.1e} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=PRESETS, choices=PRESETS, metavar="NAME")
    parser.add_argument("--scales", nargs="+", type=int, default=(2, 3, 4))
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, scale, precision = arguments.child
        print(json.dumps(export(name, int(scale), precision)))
        return 0
    print("| network | precision | s | CPU s | peak MB | nodes | file, MB | max. abs. error | RMS ratio |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    good = True
    for name in arguments.only:
        for scale in arguments.scales:
            for precision in arguments.precisions:
                result = export_in_child(name, scale, precision)
                within = result["wall"] <= MOST_SECONDS and result.get("peak_mb", 0) <= MOST_MB
                good = good and within and "error" not in result
                print(row(name, scale, precision, result), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
