"""Builds TensorRT-RTX engines of the larger networks on the CPU and prints the table of scratch memory and build times.

    python benchmarks/engines.py [--only NAME] [--json FILE]

Each row is exported in a process of its own and built by `flashrib build`, which fails where the attention of a layer is not fused;
the last column is the largest memory of the building process. `sst-light x2` has the bundled weights, the others random ones: neither
memory nor time depends on the values.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# architecture, scale, side of the tile in pixels: whole windows, which are 96 in the plus models.
NETWORKS = (("sst-light", 2, 256), ("sst-plus", 4, 192), ("esc-rib", 4, 256), ("sst-xl-plus", 2, 192))
PRECISIONS = ("fp16", "bf16")
HEADER = ("network", "precision", "tile", "scratch MB", "feature maps", "layers", "engine MB", "build s", "peak GB")


def main() -> None:
    """Run the table, or one row of it in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", metavar="NAME", help="rows whose name contains this, such as sst-plus or sst-light-x2-bf16"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows as JSON as well")
    parser.add_argument("--row", nargs=5, metavar="X", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        architecture, scale, side, precision, folder = arguments.row
        print(json.dumps(build_row(architecture, int(scale), int(side), precision, Path(folder))))
        return
    print(line(HEADER), line(["---"] * len(HEADER)), sep="\n", flush=True)
    rows = []
    for architecture, scale, side in NETWORKS:
        for precision in PRECISIONS:
            if (arguments.only or "") in f"{architecture}-x{scale}-{precision}":
                rows.append(run_row(architecture, scale, side, precision))
                print(line(cells(rows[-1])), flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def run_row(architecture: str, scale: int, side: int, precision: str) -> dict[str, Any]:
    """Build a row in a process of its own, so that its memory is measured alone."""
    with tempfile.TemporaryDirectory() as folder:
        export(architecture, scale, precision, Path(folder) / "model.onnx")
        row = ["--row", architecture, str(scale), str(side), precision, folder]
        result = subprocess.run([sys.executable, __file__, *row], capture_output=True, text=True)
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1:]
        return {"network": f"{architecture} x{scale}", "precision": precision, "error": " ".join(reason)}
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def export(architecture: str, scale: int, precision: str, path: Path) -> None:
    """Write the network as ONNX, in a process of its own because of its memory."""
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from flashrib.export.to_onnx import export_graph\n"
        "from flashrib.export.options import ExportOptions\n"
        "from flashrib.export.save import save_onnx\n"
        "from flashrib.model import build_model\n"
        "from flashrib.model.checkpoint import load_model\n"
        "from flashrib.runtime.artifacts.bundled import bundled_weights\n"
        "torch.manual_seed(0)\n"
        "name, scale, precision, path = sys.argv[1:]\n"
        "bundled = (name, scale) == ('sst-light', '2')\n"
        "network = load_model(bundled_weights()) if bundled else build_model(name, int(scale))\n"
        "save_onnx(export_graph(network, ExportOptions(precision=precision, attention='attention'), '')[0], Path(path))\n"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, architecture, str(scale), precision, str(path)], check=True
    )


def build_row(architecture: str, scale: int, side: int, precision: str, folder: Path) -> dict[str, Any]:
    """Build one engine and return what the table shows of it."""
    from flashrib.export.engine.engine_from_onnx import engine_from_onnx
    from flashrib.export.engine.options import EngineOptions
    from flashrib.export.engine.source import read_source

    source = read_source(folder / "model.onnx")
    engine = engine_from_onnx(source, EngineOptions("rtx", usual=(side, side)))
    manifest = engine.manifest
    return {
        "network": f"{architecture} x{scale}",
        "precision": precision,
        "tile": f"{side}x{side}",
        "scratch_bytes": manifest.scratch_bytes,
        "feature_maps": manifest.scratch_bytes / (side * side * source.dim * 2),
        "layers": manifest.layers,
        "engine_bytes": len(engine.plan),
        "build_seconds": manifest.build_seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "version": manifest.version,
    }


def cells(row: dict[str, Any]) -> list[str]:
    """A row as text."""
    if "error" in row:
        return [row["network"], row["precision"], row["error"], *[""] * (len(HEADER) - 3)]
    return [
        row["network"],
        row["precision"],
        row["tile"],
        f"{row['scratch_bytes'] / 1e6:.0f}",
        f"{row['feature_maps']:.1f}",
        str(row["layers"]),
        f"{row['engine_bytes'] / 1e6:.1f}",
        f"{row['build_seconds']:.0f}",
        f"{row['peak_bytes'] / 1e9:.1f}",
    ]


def line(values: Any) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(values) + " |"


if __name__ == "__main__":
    main()
