"""What a user waits for: whole commands, from files to files.

    python benchmarks/commands.py [--megapixels 24] [--frames 200] [--device cuda] [--session torch] [--profile]

Makes pictures and a video out of docs/pictures/demo_hr.png, enlarged with noise so that they compress like photographs, and runs the
command line on them in processes of its own: one picture to PNG and to JPEG, a folder of pictures of 1920x1080, a video of 1920x1080 from
H.264 to H.265. Each runs twice, and the second time counts: compiled kernels lie in Triton's cache then. "start" is the time until the
first tile begins, "work" the rest; with --profile "busy" is the share of the work in which one of the GPU's kernels or copies runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SOURCE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "demo_hr.png"

# Runs in the process that is timed: notes when the first tile begins, and what the GPU did.
WRAPPED = """
import json, os, sys, time
began = time.time()
first = []
import flashrib.runtime.tiling.run as run
real = run.run_tiles
def timed(*arguments):
    if not first:
        first.append(time.time())
    return real(*arguments)
run.run_tiles = timed
import flashrib.runtime.tiling.upscale as upscale
upscale.run_tiles = timed
from flashrib.runtime.cli import main
profile = None
if os.environ.get("PROFILE"):
    import torch
    profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True)
    profile.__enter__()
code = main(sys.argv[1:])
end = time.time()
busy = None
if profile:
    profile.__exit__(None, None, None)
    spans = sorted((e.time_range.start, e.time_range.end) for e in profile.events() if e.device_type.name == "CUDA")
    busy, reached = 0.0, 0.0
    for start, stop in spans:
        busy += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    busy = busy * 1e-6 / (end - first[0])
says = {"code": code, "start": first[0] - float(os.environ["BEGAN"]), "work": end - first[0], "busy": busy}
json.dump(says, open(os.environ["SAYS"], "w"))
"""


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of this size that compresses about as a photograph does."""
    enlarged = np.asarray(Image.open(SOURCE).convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    noise = np.random.default_rng(seed).normal(0, 2.5, enlarged.shape).astype(np.float32)
    return Image.fromarray(np.clip(enlarged + noise, 0, 255).astype(np.uint8))


def timed(folder: Path, command: list[str], profile: bool) -> dict[str, float]:
    """Run a command twice; the figures of the second time."""
    import time

    figures: dict[str, float] = {}
    for _ in range(2):
        says = folder / "says.json"
        environment = {**os.environ, "SAYS": str(says), "BEGAN": str(time.time())}
        if profile:
            environment["PROFILE"] = "1"
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", WRAPPED, *command], cwd=folder, env=environment, capture_output=True, text=True
        )
        if done.returncode or not says.exists():
            raise SystemExit(done.stdout + done.stderr)
        figures = {"seconds": time.perf_counter() - began, **json.loads(says.read_text())}
        says.unlink()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--session", default="torch")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    how = ["--session", arguments.session, "--device", arguments.device, "--overwrite"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        width = round((arguments.megapixels * 1e6 * 1.5) ** 0.5)
        photograph(width, round(width / 1.5)).save(folder / "large.jpg", quality=92)
        (folder / "many").mkdir()
        for number in range(arguments.pictures):
            photograph(1920, 1080, number).save(folder / "many" / f"{number:03}.jpg", quality=92)
        rows = [
            (f"{arguments.megapixels:g} MP JPEG -> PNG", ["upscale", "large.jpg", "-o", "large.png", *how]),
            (f"{arguments.megapixels:g} MP JPEG -> JPEG", ["upscale", "large.jpg", "-o", "large-x2.jpg", *how]),
            (f"{arguments.pictures} JPEG of 1920x1080 -> JPEG", ["upscale", "many", "-o", "results", *how]),
        ]
        if arguments.frames:
            _write_video(folder / "video.mp4", arguments.frames)
            command = ["video", "video.mp4", "-o", "large.mp4", "--preset", "ultrafast", *how]
            rows.append((f"{arguments.frames} frames of 1920x1080, H.264 -> H.265", command))
        print("| work | seconds | start | work | busy |\n|---|---|---|---|---|")
        for title, command in rows:
            f = timed(folder, command, arguments.profile)
            busy = "" if f["busy"] is None else f"{100 * f['busy']:.0f} %"
            print(f"| {title} | {f['seconds']:.1f} | {f['start']:.1f} | {f['work']:.1f} | {busy} |", flush=True)


def _write_video(path: Path, frames: int) -> None:
    import av

    base = np.asarray(photograph(2120, 1280))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for number in range(frames):
            part = np.ascontiguousarray(base[number % 200 : number % 200 + 1080, number % 200 : number % 200 + 1920])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
