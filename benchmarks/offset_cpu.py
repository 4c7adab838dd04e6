"""Both ONNX bodies of `offset_attention` in ONNX Runtime on the CPU: time, peak memory and size of the file.

    python -m benchmarks.offset_cpu [--tokens 197 1025 4097] [--threads 1] [--runs 3]

One layer of 12 heads of 64 channels in float32, one picture, neg_inf. Every figure comes from a process of its own; memory is its peak
above what it had before the session was made.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flashrib.export.operators.bodies import with_body
from flashrib.model.attention.fibonacci.offsets import head_offsets, pack_offsets

HEADS, SIZE = 12, 64
BODIES = ("standard", "dense")


def write(path: Path, tokens: int, body: str) -> None:
    """Write a model of one layer."""
    offsets = pack_offsets(head_offsets(tokens - 1, HEADS, 0, "depth"), tokens - 1)
    node = helper.make_node(
        "OffsetAttention", ["qkv", "offsets"], ["out"], name="layer", domain="flashrib", num_heads=HEADS, mask_mode=0
    )
    width = HEADS * SIZE
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, tokens, channels])
        for name, channels in (("qkv", 3 * width), ("out", width))
    ]
    graph = helper.make_graph(
        [node], "layer", ends[:1], ends[1:], [numpy_helper.from_array(offsets.numpy(), "offsets")]
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("flashrib", 1)]
    onnx.save(with_body(helper.make_model(graph, opset_imports=opsets, ir_version=10), body), path)


def measure(path: str, tokens: int, threads: int, runs: int) -> dict[str, float]:
    """Time in ms and memory in MB, in this process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    qkv = np.random.default_rng(0).standard_normal((1, tokens, 3 * HEADS * SIZE), np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        session.run(None, {"qkv": qkv})
        times.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"ms": 1e3 * statistics.median(times[1:]), "mb": (peak - before) / 1e3}


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[197, 1025, 4097])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        path, tokens = arguments.one
        print(json.dumps(measure(path, int(tokens), arguments.threads, arguments.runs)))
        return
    print("| N+1 | " + " | ".join(f"{body}: ms, MB" for body in BODIES) + " |\n|---|---|---|")
    with TemporaryDirectory() as folder:
        for tokens in arguments.tokens:
            cells = []
            for body in BODIES:
                path = Path(folder) / "layer.onnx"
                write(path, tokens, body)
                command = [sys.executable, "-m", "benchmarks.offset_cpu", "--one", str(path), str(tokens)]
                command += ["--threads", str(arguments.threads), "--runs", str(arguments.runs)]
                found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                cells.append(f"{found['ms']:.1f}, {found['mb']:.0f}")
            print(f"| {tokens} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
