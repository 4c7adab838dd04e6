"""What ONNX Runtime's arena takes for the feature maps of a network with its library, by calculation: no GPU is needed.

    python -m benchmarks.onnxruntime_memory [--presets esc-rib sst-light] [--size 540x960] [--seen]

Goes through the nodes of the file that `flashrib build --flavour onnxruntime` makes (x4, fp16, one size) and does with the maps what
ONNX Runtime does: a map is freed after the last node that reads it; an arena that grows by what is asked for keeps regions that never
merge, takes the smallest free chunk that is large enough, and splits it where it is at least twice as large or 128 MB too large. Columns:

    alive    most memory of maps that are wanted at the same time
    reuse    the arena where the buffer of a map that is read for the last time is kept for the next map of the very same size
             (`SessionOptions.enable_mem_reuse`, on unless turned off)
    without  the arena without that

Transposes count as nothing: those around convolutions vanish where the provider takes channels last. Input, output, weights and what
libraries need for themselves come on top.

`--seen` holds the calculation against ONNX Runtime on the CPU: a chain of maps of 64, 64, 16, 48, 48 and 16 MiB, twice, and how many MiB of
addresses the process has more after it ran (Linux).
"""

import argparse
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper

from flashrib.export.onnxruntime.trace import traced_with_passes
from flashrib.model import build_model

SPLIT = 128 << 20
BYTES = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.FLOAT16: 2}


class Arena:
    """Regions of chunks (name of the map or None, bytes), as of ONNX Runtime's BFC arena."""

    def __init__(self) -> None:
        self.regions: list[list[tuple[str | None, int]]] = []

    def take(self, name: str, size: int) -> None:
        free = [
            (chunk[1], region, index)
            for region, chunks in enumerate(self.regions)
            for index, chunk in enumerate(chunks)
            if chunk[0] is None and chunk[1] >= size
        ]
        if not free:
            self.regions.append([(name, size)])
            return
        found, region, index = min(free)
        split = found >= 2 * size or found - size >= SPLIT
        self.regions[region][index : index + 1] = [(name, size), (None, found - size)] if split else [(name, found)]

    def give(self, name: str) -> None:
        for region, chunks in enumerate(self.regions):
            merged: list[tuple[str | None, int]] = []
            for owner, size in chunks:
                if owner in (None, name) and merged and merged[-1][0] is None:
                    merged[-1] = None, merged[-1][1] + size
                else:
                    merged.append((None if owner == name else owner, size))
            self.regions[region] = merged

    @property
    def size(self) -> int:
        return sum(size for chunks in self.regions for _, size in chunks)


def maps_of(model: onnx.ModelProto) -> tuple[list[tuple[list[str], list[str]]], dict[str, int]]:
    """Maps that each node reads and makes, and the bytes of each."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    sizes = {}
    for value in inferred.value_info:
        kind = value.type.tensor_type
        sizes[value.name] = math.prod(side.dim_value for side in kind.shape.dim) * BYTES.get(kind.elem_type, 8)
    same: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:
        inputs = [same.get(name, name) for name in node.input]
        if node.op_type == "Transpose":
            same[node.output[0]] = inputs[0]
            continue
        nodes.append(([n for n in inputs if n in sizes], [n for n in node.output if n in sizes]))
    return nodes, sizes


def arena_of(nodes: list[tuple[list[str], list[str]]], sizes: dict[str, int], reuse: bool) -> tuple[int, int]:
    """Bytes of the arena after two runs, and most bytes that are wanted at the same time."""
    last = {name: index for index, (inputs, outputs) in enumerate(nodes) for name in [*outputs, *inputs]}
    buffer: dict[str, str] = {}  # map -> the map whose buffer it gets
    dead: list[str] = []  # buffers that may be reused
    until: dict[str, int] = {}
    for index, (inputs, outputs) in enumerate(nodes):
        for name in outputs:
            fitting = next((old for old in dead if reuse and sizes[old] == sizes[name]), name)
            buffer[name] = fitting
            if fitting != name:
                dead.remove(fitting)
            until[fitting] = last[name]
        dead += [buffer[name] for name in dict.fromkeys([*inputs, *outputs]) if last[name] == index and name in buffer]
    arena, alive, most = Arena(), set[str](), 0
    for _ in range(2):
        for index, (_, outputs) in enumerate(nodes):
            for name in outputs:
                if buffer[name] == name:
                    arena.take(name, -(-sizes[name] // 256) * 256)
                    alive.add(name)
            most = max(most, sum(sizes[name] for name in alive))
            for name in [name for name in alive if until[name] <= index]:
                arena.give(name)
                alive.remove(name)
    return arena.size, most


def chain() -> onnx.ModelProto:
    """Maps of three sizes in turn, twice."""
    width = 1 << 22  # 16 MiB
    nodes, values, last = [], [], "input"
    for index, count in enumerate((4, 3, 4, 3)):
        for made, inputs, kind, rows in (
            (f"many{index}", [last] * count, "Concat", count),
            (f"turned{index}", [f"many{index}", f"order{count}"], "Gather", count),
            (f"one{index}" if index < 3 else "output", [f"turned{index}", "from", "to", "from"], "Slice", 1),
        ):
            nodes.append(helper.make_node(kind, inputs, [made], **({} if kind == "Slice" else {"axis": 0})))
            values.append(helper.make_tensor_value_info(made, onnx.TensorProto.FLOAT, [rows, width]))
            last = made
    numbers = {"from": [0], "to": [1], "order4": [3, 2, 1, 0], "order3": [2, 1, 0]}
    constants = [helper.make_tensor(n, onnx.TensorProto.INT64, [len(v)], v) for n, v in numbers.items()]
    source = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, width])
    graph = helper.make_graph(nodes, "chain", [source], [values.pop()], constants, value_info=values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def address_space() -> int:
    """Bytes of addresses that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def seen(reuse: bool) -> int:
    """Bytes that ONNX Runtime's arena of the CPU takes for the chain."""
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(0, 1, -1, -1))  # grows as is asked for
    options = onnxruntime.SessionOptions()
    options.enable_mem_reuse, options.enable_mem_pattern, options.intra_op_num_threads = reuse, False, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.use_env_allocators", "1")
    model = chain().SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {"input": np.zeros((1, 1 << 22), np.float32)}
    before = address_space()
    result = session.run(None, feed)
    after = address_space()
    del result
    return after - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["esc-rib", "sst-light"])
    parser.add_argument("--size", default="540x960")
    parser.add_argument("--seen", action="store_true", help="compare with ONNX Runtime on the CPU, and nothing else")
    arguments = parser.parse_args()
    if arguments.seen:
        nodes, sizes = maps_of(chain())
        for reuse in (True, False):
            code = f"from benchmarks.onnxruntime_memory import seen; print(seen({reuse}))"
            found = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
            calculated = arena_of(nodes, sizes, reuse)[0]
            name = "reuse" if reuse else "without"
            print(f"{name}: {calculated / 2**20:.0f} MiB by calculation, {found / 2**20:.0f} seen")
        return
    height, width = map(int, arguments.size.split("x"))
    for preset in arguments.presets:
        torch.manual_seed(0)
        nodes, sizes = maps_of(traced_with_passes(build_model(preset, 4), "fp16", (height, width), ""))
        reused, _ = arena_of(nodes, sizes, reuse=True)
        free, alive = arena_of(nodes, sizes, reuse=False)
        figures = ", ".join(
            f"{name} {size / 2**20:.0f} MiB" for name, size in (("alive", alive), ("reuse", reused), ("without", free))
        )
        print(f"{preset} {arguments.size}: {figures}", flush=True)


if __name__ == "__main__":
    main()
