"""What a user waits for: whole commands, from files to files.

    python benchmarks/commands.py [--megapixels 24] [--pictures 24 200] [--frames 200] [--profile] [--parts] [--device cuda]

Makes pictures and a video out of docs/pictures/demo_hr.png, enlarged with noise so that they compress like photographs, and runs the
command line on them in processes of its own: one picture to PNG and to JPEG, a folder of pictures of 1920x1080, a video of 1920x1080 from
H.264 to H.265. Each runs twice, and the second time counts: compiled kernels lie in Triton's cache then. "start" is the time until the
first tile begins, "work" the rest; with --profile "busy" is the share of the work in which one of the GPU's kernels or copies runs, in a
third run. --parts shows what the start of a small picture is made of; it may stand alone with --only-parts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SOURCE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "demo_hr.png"
MOMENTS = Path(__file__).with_name("moments.py")


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of this size that compresses about as a photograph does."""
    enlarged = np.asarray(Image.open(SOURCE).convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    noise = np.random.default_rng(seed).normal(0, 2.5, enlarged.shape).astype(np.float32)
    return Image.fromarray(np.clip(enlarged + noise, 0, 255).astype(np.uint8))


def write_photographs(folder: Path, count: int, width: int = 1920, height: int = 1080) -> None:
    """Write JPEG files of this size, in processes."""
    folder.mkdir()
    with ProcessPoolExecutor() as pool:
        list(
            pool.map(
                _write_photograph, [(folder / f"{number:03}.jpg", width, height, number) for number in range(count)]
            )
        )


def _write_photograph(what: tuple[Path, int, int, int]) -> None:
    path, width, height, seed = what
    photograph(width, height, seed).save(path, quality=92)


def measured(folder: Path, command: list[str], profile: bool = False) -> dict[str, Any]:
    """Run a command in a process of its own; what `moments` says, with "seconds" in all and "work" from the first tile on."""
    says = folder / "says.json"
    environment = {**os.environ, "SAYS": str(says), "BEGAN": str(time.time()), **({"PROFILE": "1"} if profile else {})}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(MOMENTS), *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode or not says.exists():
        raise SystemExit(done.stdout + done.stderr)
    seconds = time.perf_counter() - began
    figures: dict[str, Any] = {"seconds": seconds, **json.loads(says.read_text())}
    says.unlink()
    if figures["code"]:
        raise SystemExit(f"flashrib {' '.join(command)}: exit code {figures['code']}\n{done.stderr}")
    return {**figures, "work": figures["end"] - figures["first"]}


def timed(folder: Path, command: list[str], profile: bool) -> dict[str, Any]:
    """Run a command twice; the figures of the second time, and "busy" of a third."""
    measured(folder, command)
    figures = measured(folder, command)
    return {**figures, "busy": measured(folder, command, profile=True)["busy"] if profile else None}


def print_parts(figures: dict[str, Any]) -> None:
    """Print where the time before the first tile goes; parts lie in one another, or run at the same time in several threads."""
    print("\n| part of the start | begins, s | ends, s | takes, s |\n|---|---|---|---|")
    rows = {**figures["parts"], "first tile on its way": [figures["first"]], "first result": [figures["last"]]}
    for name, moments in sorted(rows.items(), key=lambda row: row[1]):
        end = f"{moments[1]:.2f} | {moments[1] - moments[0]:.2f}" if len(moments) > 1 else " | "
        print(f"| {name} | {moments[0]:.2f} | {end} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--pictures", type=int, nargs="*", default=[24])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--session", default="torch")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--only-parts", action="store_true")
    arguments = parser.parse_args()
    how = ["--session", arguments.session, "--device", arguments.device, "--overwrite"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.parts or arguments.only_parts:
            photograph(960, 540).save(folder / "small.jpg", quality=92)
            print_parts(timed(folder, ["upscale", "small.jpg", "-o", "small.png", *how], profile=False))
        if arguments.only_parts:
            return
        width = round((arguments.megapixels * 1e6 * 1.5) ** 0.5)
        photograph(width, round(width / 1.5)).save(folder / "large.jpg", quality=92)
        rows = [
            (f"{arguments.megapixels:g} MP JPEG -> PNG", ["upscale", "large.jpg", "-o", "large.png", *how]),
            (f"{arguments.megapixels:g} MP JPEG -> JPEG", ["upscale", "large.jpg", "-o", "large-x2.jpg", *how]),
        ]
        for count in arguments.pictures:
            write_photographs(folder / f"many{count}", count)
            command = ["upscale", f"many{count}", "-o", f"results{count}", *how]
            rows.append((f"{count} JPEG of 1920x1080 -> JPEG", command))
        if arguments.frames:
            write_video(folder / "video.mp4", arguments.frames)
            command = ["video", "video.mp4", "-o", "large.mp4", "--preset", "ultrafast", *how]
            rows.append((f"{arguments.frames} frames of 1920x1080, H.264 -> H.265", command))
        print("| work | seconds | start | work | busy |\n|---|---|---|---|---|")
        for title, command in rows:
            f = timed(folder, command, arguments.profile)
            busy = "" if f["busy"] is None else f"{100 * f['busy']:.0f} %"
            print(f"| {title} | {f['seconds']:.1f} | {f['first']:.1f} | {f['work']:.1f} | {busy} |", flush=True)


def write_video(path: Path, frames: int, width: int = 1920, height: int = 1080) -> None:
    """Write a video of H.264 whose picture moves."""
    import av

    base = np.asarray(photograph(width + 200, height + 200))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            part = np.ascontiguousarray(base[number % 200 :, number % 200 :][:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
