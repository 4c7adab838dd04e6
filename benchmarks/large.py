"""A huge picture through a cheap network on the CPU: memory, and equality with the untiled result on sampled regions.

    python benchmarks/large.py [--sizes 6000x6000 6000x24000 24000x24000] [--formats png tif jpg] [--memory 640M] [--folder DIR]

Makes a picture of nested patterns at all scales, as one zooms into (seams of a pixel show in it), an ONNX file of a cheap network that
depends on where windows begin, x2, and runs `flashrib upscale --memory` on it in a process of its own, one format after the other. Peak
memory is the most that was resident in that process. Then, at --samples places of the result, most of them on borders of tiles, a region
is compared with what the network makes of a part of the picture that begins on a window and is larger than its field of view; for JPEG
that is coded likewise, block by block.

Runs on any Linux without a GPU. Modules: numpy, pillow, onnx, onnxruntime, pyvips[binary], tifffile, isal. Disk in --folder for one format
at a time: 10 GB for 24000x24000, a quarter of it for 6000x24000. Memory of this process itself: below 2 GB.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.pictures.encode import JPEG_QUALITY, Metadata
from flashrib.runtime.pictures.large.sink import file_sink
from flashrib.runtime.pictures.large.source import VipsSource
from flashrib.runtime.sessions.table import open_session
from flashrib.runtime.tiling.upscale import upscale_array

WINDOW = 8
ROWS = 512  # written at a time
REGION, AROUND = 96, 160  # pixels of the input that are compared, and around them, more than any pixel sees


def pattern(rows: slice, width: int) -> NDArray[np.uint8]:
    """Rows of the picture: squares in squares, rings, and diagonals that meet nowhere but at the pixel."""
    y = np.arange(rows.start, rows.stop, dtype=np.int64)[:, None]
    x = np.arange(width, dtype=np.int64)[None]
    red = (x ^ y) & 255
    green = ((x * x + y * y) >> 9) & 255
    blue = ((x & y) * 5 + (x + y) // 3) & 255
    return np.stack(np.broadcast_arrays(red, green, blue), axis=2).astype(np.uint8)


def write_picture(path: Path, width: int, height: int) -> None:
    with file_sink(path, height, width, 3, np.dtype(np.uint8), Metadata()) as sink:
        for top in range(0, height, ROWS):
            rows = slice(top, min(top + ROWS, height))
            band = sink.band(rows)
            band[...] = pattern(rows, width)
            sink.write(rows, band)


def write_model(path: Path) -> None:
    """A convolution with random weights, minus half the maximum of each pixel's window: it sees where windows begin, for little work."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weight = random.normal(0, 0.15, (12, 3, 3, 3)).astype(np.float32)
    constants = {"weight": weight, "bias": np.full(12, 0.5, np.float32), "half": np.float32(0.5)}
    constants |= {"scales": np.array([1, 1, WINDOW, WINDOW], np.float32)}
    nodes = [
        helper.make_node(
            "MaxPool", ["input"], ["pooled"], kernel_shape=[WINDOW] * 2, strides=[WINDOW] * 2, ceil_mode=1
        ),
        helper.make_node(
            "Resize",
            ["pooled", "", "scales"],
            ["maximum"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        helper.make_node("Mul", ["maximum", "half"], ["halved"]),
        helper.make_node("Sub", ["input", "halved"], ["centred"]),
        helper.make_node("Conv", ["centred", "weight", "bias"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["features"], ["output"], blocksize=2, mode="CRD"),
    ]
    graph = helper.make_graph(
        nodes,
        "cheap",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ("n", 3, "h", "w"))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ("n", 3, "oh", "ow"))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    info = ModelInfo(architecture="custom", scale=2, alignment=WINDOW, minimum=WINDOW, version="1")
    helper.set_model_props(model, info.to_properties())
    path.write_bytes(onnx.ModelProto.SerializeToString(model))


def pass_over(source: VipsSource, start: int, stop: int) -> int:
    """Read the rows before `stop` and forget them, a few at a time; those before `start` are forgotten already. Returns `stop`."""
    for top in range(start, stop, ROWS):
        source.forget(top)
        source.read(slice(top, min(top + ROWS, stop)), slice(0, 1))
    source.forget(stop)
    return stop


def sampled(model: Path, source: Path, result: Path, samples: int, tile: int) -> int:
    """Compare regions of a result with the network on a part of the source around each; the largest difference in levels of 255."""
    given, made, worst = VipsSource(source), VipsSource(result), 0
    passed = passed_result = 0  # rows
    sides = given.height, given.width
    random = np.random.default_rng(1)
    places = []
    for _ in range(samples):
        # A border of tiles runs through most of them; JPEG's blocks begin where they begin.
        y, x = (
            max(0, int(random.integers(0, side - REGION)) // tile * tile - int(random.integers(0, REGION)))
            for side in sides
        )
        places.append((y // 8 * 8, x // 8 * 8))
    with open_session(model) as session:
        for y, x in sorted(places):
            top, left = (max(0, at - AROUND) // WINDOW * WINDOW for at in (y, x))
            bottom, right = (min(side, at + REGION + AROUND) for side, at in zip(sides, (y, x), strict=True))
            passed = pass_over(given, passed, top)
            passed_result = pass_over(made, passed_result, 2 * y)
            whole = upscale_array(session, given.read(slice(top, bottom), slice(left, right)), tile=1024)
            wanted = whole[2 * (y - top) :, 2 * (x - left) :][: 2 * REGION, : 2 * REGION]
            if result.suffix == ".jpg":
                part = result.with_name("part.jpg")
                Image.fromarray(wanted).save(part, quality=JPEG_QUALITY, subsampling=0)
                wanted = VipsSource(part).read(slice(0, wanted.shape[0]), slice(0, wanted.shape[1]))
            seen = made.read(slice(2 * y, 2 * y + wanted.shape[0]), slice(2 * x, 2 * x + wanted.shape[1]))
            worst = max(worst, int(np.abs(seen.astype(int) - wanted).max()))
    return worst


def child(command: list[str]) -> None:
    """Run a command line; print seconds and peak memory in MB."""
    from flashrib.runtime.cli import main as flashrib

    began = time.perf_counter()
    code = flashrib(command)
    # Not getrusage: its peak starts at what the parent process had when it forked.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(time.perf_counter() - began, int(status["VmHWM"].split()[0]) / 1024)
    raise SystemExit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["6000x6000", "6000x24000", "24000x24000"], help="WIDTHxHEIGHT")
    parser.add_argument("--formats", nargs="+", default=["png", "tif", "jpg"])
    parser.add_argument("--memory", default="640M")
    parser.add_argument("--halo", default="16")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="where the files go; default: a temporary folder, which is removed")
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_model(folder / "tiny.onnx")
        print(
            "| size | format | seconds | peak, MB | result, MB | largest difference |\n|---|---|---|---|---|---|",
            flush=True,
        )
        for kind in arguments.formats:
            for size in arguments.sizes:
                width, height = map(int, size.split("x"))
                source, result = folder / f"in.{kind}", folder / f"out.{kind}"
                write_picture(source, width, height)
                command = ["upscale", str(source), "-o", str(result), "--model", str(folder / "tiny.onnx")]
                command += ["--memory", arguments.memory, "--halo", arguments.halo]
                measure = [sys.executable, __file__, "--child", *command]
                done = subprocess.run(measure, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stdout + done.stderr)
                seconds, peak = map(float, done.stdout.split()[-2:])
                worst = sampled(folder / "tiny.onnx", source, result, arguments.samples, 64)
                megabytes = result.stat().st_size / 1e6
                print(f"| {size} | {kind} | {seconds:.0f} | {peak:.0f} | {megabytes:.0f} | {worst} |", flush=True)
                source.unlink()
                result.unlink()


if __name__ == "__main__":
    main()
