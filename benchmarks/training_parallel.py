"""Milliseconds per step of `flashrib train` itself, loop, data and exchange of gradients included, on one GPU or several.

    python benchmarks/training_parallel.py [--preset sst-light] [--patch 96] [--batch 8] [--degradation photo] [--device cuda]
    torchrun --nproc-per-node 2 benchmarks/training_parallel.py ...

Pictures are random; the time is from the second to the last row of the log, whose validation is one picture of one patch. Several
GPUs do a step on that many times as many patches: patches per second are what to compare.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from flashrib.model.training.config import TrainConfig
from flashrib.model.training.loop import train


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="sst-light")
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8, help="of each GPU")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--degradation", default="bicubic")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        side = arguments.patch * arguments.scale
        for name, sides in (("data", 2 * side), ("check", side)):
            (Path(made) / name).mkdir()
            pixels = np.random.default_rng(0).integers(0, 256, (sides, sides, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(made) / name / "noise.png")
        config = TrainConfig(
            data=(f"{made}/data",),
            arch=arguments.preset,
            scale=arguments.scale,
            degradation=arguments.degradation,
            validation=0,
            validation_sets={"noise": f"{made}/check"},
            patch=arguments.patch,
            batch=arguments.batch,
            steps=arguments.steps,
            warmup=10,
            compile=arguments.device == "cuda",
            validate_every=arguments.steps // 4,
            save_every=arguments.steps,
        )
        rows: list[dict[str, float]] = []
        train(config, Path(made) / "run", device=arguments.device, progress=False, on_log=rows.append)
    if rows:  # the first process
        steps, seconds = (rows[-1][name] - rows[0][name] for name in ("step", "seconds"))
        gpus = int(os.environ.get("WORLD_SIZE", 1))
        print(
            f"{arguments.preset}, {gpus} GPU(s): {seconds / steps * 1000:.1f} ms per step of {gpus} x {arguments.batch} patches of"
            f" {arguments.patch}x{arguments.patch}, {gpus * arguments.batch * steps / seconds:.1f} patches/s"
        )


if __name__ == "__main__":
    main()
