"""Frames per second of whole commands: videos from H.264 to H.265, and folders of JPEG to JPEG, on one GPU and on several.

    python benchmarks/frames.py [--sizes 960x540 1280x720 1920x1080] [--devices cuda:0 cuda:0,cuda:1] [--frames 150]

Bundled sst-light x2, fp16. A video and a folder of as many pictures are made for each size; each command runs twice, and the second time
counts. Frames per second are frames / seconds from the first tile to the end of the command; the start is a column of its own.
Devices that the machine has not are left out; "--devices cpu --frames 2 --sizes 64x48" tries the benchmark where there is no GPU.
"""

import argparse
import tempfile
from pathlib import Path

from commands import timed, write_photographs, write_video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["960x540", "1280x720", "1920x1080"])
    parser.add_argument("--devices", nargs="+", default=["cuda:0", "cuda:0,cuda:1"])
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--profile", action="store_true", help="how busy the GPUs are, in a third run")
    arguments = parser.parse_args()
    devices = [names for names in arguments.devices if names == "cpu" or len(names.split(",")) <= gpus()]
    print("| work | input | devices | frames | frames/s | start, s | busy |\n|---|---|---|---|---|---|---|", flush=True)
    for size in arguments.sizes:
        width, height = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_video(folder / "video.mp4", arguments.frames, width, height)
            write_photographs(folder / "many", arguments.frames, width, height)
            for names in devices:
                how = ["--session", "torch", "--device", names, "--overwrite"]
                commands = {
                    "video": ["video", "video.mp4", "-o", "large.mp4", "--preset", "ultrafast", *how],
                    "pictures": ["upscale", "many", "-o", "results", *how],
                }
                for title, command in commands.items():
                    f = timed(folder, command, arguments.profile)
                    busy = "" if f["busy"] is None else f"{100 * f['busy']:.0f} %"
                    rate = arguments.frames / f["work"]
                    row = (
                        f"| {title} | {size} | {names} | {arguments.frames} | {rate:.1f} | {f['first']:.1f} | {busy} |"
                    )
                    print(row, flush=True)


def gpus() -> int:
    """How many there are, without making contexts on them."""
    import torch

    return torch.cuda.device_count()


if __name__ == "__main__":
    main()
