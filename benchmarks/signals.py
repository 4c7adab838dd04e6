"""How soon commands end after Ctrl-C and SIGTERM at random moments, and what they leave behind.

    python benchmarks/signals.py [--moments 40] [--seed 0] [--command upscale ...]

Each command runs in a folder of its own and is sent SIGINT or SIGTERM, in turn, at a moment between its start and the time that
an undisturbed run takes. Prints, per command, the slowest end, exit codes that are wrong, tracebacks, and files left behind.
"""

import argparse
import dataclasses
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from flashrib.runtime.artifacts.bundled import default_model, default_weights

LITTER = (".part", ".tmp")
TRAIN = """
data = ["pictures"]
arch = "sst-light"
scale = 2
steps = 1000
validation = 1
"""


@dataclasses.dataclass
class Outcome:
    """What became of one run: seconds from the signal to the end, what was wrong (empty: nothing), and whether it came too late."""

    seconds: float
    wrong: str
    late: bool


def commands(folder: Path) -> dict[str, list[str]]:
    """Arguments per command, and the files that they need."""
    pictures = folder / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0)
    for index in range(24):
        pixels = noise.integers(0, 256, (20, 20, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
        Image.fromarray(pixels).save(pictures / f"{index}.png")
    (folder / "train.toml").write_text(TRAIN.lstrip())
    return {
        "upscale": ["upscale", "pictures", "-o", "out"],
        "export": ["export", default_weights().name, "-o", "model.onnx"],
        "calibrate": ["calibrate", "bundled.onnx", "--mode", "int8", "--pictures", "pictures", "-o", "small.onnx"],
        "train": ["train", "train.toml", "-o", "run"],
    }


def interrupt(arguments: list[str], folder: Path, seconds: float, number: int) -> Outcome:
    """Run a command in `folder` and send it a signal after `seconds`."""
    before = set(folder.rglob("*"))
    command = [sys.executable, "-m", "flashrib.runtime.cli", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    late = process.poll() is not None
    process.send_signal(number)
    sent = time.perf_counter()
    try:
        _, err = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        return Outcome(30.0, "hangs", False)
    took = time.perf_counter() - sent
    left = [path for path in folder.rglob("*") if path not in before and is_litter(path)]
    wrong = []
    if not late and process.returncode not in (128 + number, 0, -number if seconds < 0.1 else 128 + number):
        wrong.append(f"exit code {process.returncode}: {err.strip()[-300:]}")
    if "Traceback" in err and seconds > 0.1:
        wrong.append(f"traceback: {err.strip()[-300:]}")
    if left:
        wrong.append(f"left behind: {left}")
    return Outcome(took, "; ".join(wrong), late)


def is_litter(path: Path) -> bool:
    """Whether a file or folder is a temporary one."""
    return path.name.endswith(LITTER) or (path.name.startswith(".") and ".onnx." in path.name)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", nargs="+", default=["upscale", "export", "calibrate", "train"])
    parser.add_argument("--most", type=float, default=20.0, help="seconds after which no signal is sent any more")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        base.mkdir()
        every = commands(base)
        shutil.copy(default_model(), base / "bundled.onnx")
        shutil.copy(default_weights(), base)
        for command in options.command:
            started = time.perf_counter()
            folder = Path(name) / command
            shutil.copytree(base, folder)
            with subprocess.Popen(
                [sys.executable, "-m", "flashrib.runtime.cli", *every[command]],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                try:
                    process.wait(options.most)
                except subprocess.TimeoutExpired:
                    process.kill()
            whole = min(time.perf_counter() - started, options.most)
            outcomes = []
            for index in range(options.moments):
                shutil.rmtree(folder)
                shutil.copytree(base, folder)
                number = (signal.SIGINT, signal.SIGTERM)[index % 2]
                outcomes.append(interrupt(every[command], folder, chance.uniform(0, whole), number))
            times = sorted(outcome.seconds for outcome in outcomes if not outcome.late)
            late = sum(outcome.late for outcome in outcomes)
            median = times[len(times) // 2] if times else 0.0
            print(
                f"{command}: {len(times)} signals in {whole:.1f} s ({late} came after the end), median {median:.2f} s,",
                end=" ",
            )
            print(f"slowest {max(times, default=0.0):.2f} s")
            for outcome in outcomes:
                if outcome.wrong:
                    print(f"  {outcome.wrong}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
