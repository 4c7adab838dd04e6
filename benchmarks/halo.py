"""Tiles against whole pictures: PSNR between the two for each tile and halo, and the pixels computed more than once.

    python benchmarks/halo.py FOLDER [--pairs TILE:HALO ...] [--picture OUT.png] [--threads 2]

FOLDER holds low-resolution pictures, or NAME_LR.* beside NAME_HR.* (then only the former are taken). The outputs are compared before
rounding to 8 bits, on the scale 0..1. `--picture` writes the difference for the first pair and the first picture, amplified 64 times.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np

from flashrib.runtime.artifacts.bundled import bundled_model
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from flashrib.runtime.tiling.plan import plan
from flashrib.runtime.tiling.upscale import upscale_array

PAIRS = ("64:0", "64:64", "128:0", "128:64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", nargs="+", default=PAIRS, metavar="TILE:HALO")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.glob("*_LR.*")) or sorted(arguments.folder.glob("*"))
    session = OnnxRuntimeSession(bundled_model(), threads=arguments.threads)
    inputs = [read_picture(path).pixels.astype(np.float32) / 255 for path in paths]
    largest_side = max(max(x.shape) for x in inputs) + session.info.alignment  # the tile is rounded down to a multiple
    whole = [upscale_array(session, x, tile=largest_side, halo=0) for x in inputs]
    print(
        "| tile | halo | tiles | pixels computed / written | PSNR mean, dB | PSNR worst, dB | largest difference, levels of 255 | s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for index, pair in enumerate(arguments.pairs):
        tile, halo = map(int, pair.split(":"))
        start = time.perf_counter()
        errors, largest, tiles, overhead = [], 0.0, 0, []
        for number, (x, expected) in enumerate(zip(inputs, whole, strict=True)):
            division = plan(*x.shape[:2], (tile, tile), halo, session.info.alignment, session.info.minimum)
            tiles += len(division)
            overhead.append(division.overhead)
            difference = upscale_array(session, x, tile=tile, halo=halo) - expected
            largest = max(largest, float(np.abs(difference).max()))
            error = float(np.mean(np.square(difference, dtype=np.float64)))
            errors.append(-10 * math.log10(error) if error else math.inf)
            if arguments.picture and index == number == 0:
                visible = np.clip(np.abs(difference) * 64 * 255, 0, 255).astype(np.uint8)
                write_picture(arguments.picture, Picture(visible), overwrite=True)
        finite = [e for e in errors if e < math.inf] or [math.inf]
        print(
            f"| {tile} | {halo} | {tiles} | {np.mean(overhead):.2f} | {np.mean(finite):.1f} | {min(errors):.1f} |"
            f" {largest * 255:.2f} | {time.perf_counter() - start:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
