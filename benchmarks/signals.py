"""How soon commands end after Ctrl-C and SIGTERM at random moments, and what they leave behind.

    python benchmarks/signals.py [--moments 40] [--seed 0] [--command upscale ...]

Each command runs in a folder of its own and is sent SIGINT or SIGTERM, in turn, at a moment between its start and its end, counted in
seconds of the processor, so that a busy machine reaches the same places. Prints, per command, how long the end took, by the clock and
by the processor (all threads together), exit codes that are wrong, tracebacks, and files left behind.
"""

import argparse
import dataclasses
import os
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

from flashrib.runtime.artifacts.bundled import bundled_model, bundled_weights

LITTER = (".part", ".tmp")
HANGS_SECONDS = 30.0
EARLY_SECONDS = 0.1
TRAIN = """
data = ["pictures"]
arch = "sst-light"
scale = 2
steps = 1000
validation = 1
"""


@dataclasses.dataclass
class Outcome:
    """What became of one run.

    Attributes:
        seconds: from the signal to the end.
        cpu: seconds of the processor that the process took meanwhile.
        moment: of the signal, in seconds of the processor.
        wrong: what was wrong; empty: nothing.
        late: the signal came after the end.
    """

    seconds: float
    cpu: float
    moment: float
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
        "export": ["export", bundled_weights().name, "-o", "model.onnx"],
        "calibrate": ["calibrate", "bundled.onnx", "--mode", "int8", "--pictures", "pictures", "-o", "small.onnx"],
        "train": ["train", "train.toml", "-o", "run"],
    }


def used(process: int) -> float:
    """Seconds of the processor that a running process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ended(process: int) -> tuple[int, float] | None:
    """Exit code, negative for a signal, and seconds of the processor of a process that has ended; None: it has not."""
    found, status, usage = os.wait4(process, os.WNOHANG)
    return (os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime) if found else None


def run(arguments: list[str], folder: Path, cpu: float, number: int | None) -> tuple[Outcome, float]:
    """Run a command in `folder` and send it a signal after `cpu` seconds of the processor; None: none.

    Returns:
        What became of it, and the seconds of the processor that it took in all.
    """
    before = set(folder.rglob("*"))
    with tempfile.TemporaryFile() as err:
        command = [sys.executable, "-m", "flashrib.runtime.cli", *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=err).pid
        at, sent, state = 0.0, 0.0, None
        while (state := ended(process)) is None:
            if sent and time.perf_counter() - sent > HANGS_SECONDS:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                return Outcome(HANGS_SECONDS, 0.0, at, "hangs", False), 0.0
            if not sent and (at := used(process)) >= cpu:
                if number is None:
                    os.kill(process, signal.SIGKILL)
                    return Outcome(0.0, 0.0, at, "", True), ended_at(process)
                os.kill(process, number)
                sent = time.perf_counter()
            time.sleep(0.003)
        took = time.perf_counter() - sent
        err.seek(0)
        said = err.read().decode(errors="replace").strip()
    code, total = state
    if not sent or number is None or code == 0:  # what is done is not undone
        return Outcome(0.0, 0.0, at, "" if code == 0 else f"exit code {code}: {said[-300:]}", True), total
    left = [path for path in folder.rglob("*") if path not in before and is_litter(path)]
    wrong = []
    # Before Python itself has started, nothing of ours can answer.
    if code not in ((128 + number,) if at > EARLY_SECONDS else (128 + number, -number)):
        wrong.append(f"exit code {code}: {said[-300:]}")
    if "Traceback" in said and at > EARLY_SECONDS:
        wrong.append(f"traceback: {said[-300:]}")
    if left:
        wrong.append(f"left behind: {left}")
    return Outcome(took, total - at, at, "; ".join(wrong), False), total


def ended_at(process: int) -> float:
    """Wait for a process, and return the seconds of the processor that it took."""
    _, _, usage = os.wait4(process, 0)
    return usage.ru_utime + usage.ru_stime


def figures(outcomes: list[Outcome]) -> str:
    """Median and largest time to the end, in words."""
    words = []
    for what, values in (("clock", [o.seconds for o in outcomes]), ("processor", [o.cpu for o in outcomes])):
        ordered = sorted(values) or [0.0]
        words.append(f"{what} median {ordered[len(ordered) // 2]:.2f} s, slowest {ordered[-1]:.2f} s")
    return "; ".join(words)


def is_litter(path: Path) -> bool:
    """Whether a file or folder is a temporary one."""
    return path.name.endswith(LITTER) or (path.name.startswith(".") and ".onnx." in path.name)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", nargs="+", default=["upscale", "export", "calibrate", "train"])
    parser.add_argument("--most", type=float, default=20.0, help="no signal after so many seconds of the processor")
    parser.add_argument("--show", type=int, default=0, help="say this many of the slowest ends, one by one")
    options = parser.parse_args()
    # A shell's background job ignores Ctrl-C, and so would the commands.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        base.mkdir()
        every = commands(base)
        shutil.copy(bundled_model(), base / "bundled.onnx")
        shutil.copy(bundled_weights(), base)
        for command in options.command:
            folder = Path(name) / command
            shutil.copytree(base, folder)
            _, whole = run(every[command], folder, options.most, None)
            outcomes = []
            for index in range(options.moments):
                shutil.rmtree(folder)
                shutil.copytree(base, folder)
                number = (signal.SIGINT, signal.SIGTERM)[index % 2]
                outcomes.append(run(every[command], folder, chance.uniform(0, whole), number)[0])
            timely = [outcome for outcome in outcomes if not outcome.late]
            print(
                f"{command}: {len(timely)} signals in {whole:.1f} s, load {os.getloadavg()[0]:.1f}: {figures(timely)}"
            )
            for outcome in sorted(timely, key=lambda outcome: -outcome.seconds)[: options.show]:
                print(f"  after {outcome.moment:.2f} s: {outcome.seconds:.2f} s, {outcome.cpu:.2f} s of the processor")
            for outcome in outcomes:
                if outcome.wrong:
                    print(f"  {outcome.wrong}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
