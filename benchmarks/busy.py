"""How busy a batch of pictures keeps a device, without a device: what is measured is everything around it.

    python benchmarks/busy.py [--pictures 60] [--size 960x540] [--milliseconds 35] [--launches 40] [--format jpg]

The session stands for a GPU that takes so many milliseconds a picture and none of the processor: a result is there when that time has
gone by since the picture before was done. Sending a picture lets other threads run so many times, as launching kernels does. Printed are
the busy share of the time from the first picture sent to the end of the last file, and the processor time of a picture: more than
milliseconds times cores cannot be hidden.
"""

import argparse
import tempfile
import time
import zlib
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from commands import write_photographs

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.jobs.plan import Naming, plan_jobs
from flashrib.runtime.jobs.run import Done, Options, run_jobs
from flashrib.runtime.pictures.blocks import available_cpus
from flashrib.runtime.sessions.base import SessionBase

_LAUNCH = bytes(8192)  # enough that other threads may run meanwhile


class FakeDevice(SessionBase):
    """A session and its only worker: puts a picture four times beside itself, `seconds` after the one before."""

    ahead = 2

    def __init__(self, seconds: float, launches: int) -> None:
        self.info = ModelInfo(scale=2, alignment=64)
        self._seconds, self._launches = seconds, launches
        self._in_work: deque[tuple[Any, float]] = deque()
        self.first = self._free = self.busy = 0.0

    @property
    def workers(self) -> Any:
        return (self,)

    def most_pixels(self) -> int:
        return 2**30

    def submit(self, pixels: Any, *_: Any) -> None:
        copied = pixels.copy()
        for _launch in range(self._launches):
            zlib.crc32(_LAUNCH)
        now = time.perf_counter()
        self.first = self.first or now
        self._free = max(self._free, now) + self._seconds
        self.busy += self._seconds
        self._in_work.append((copied, self._free))

    def collect(self, target: Any) -> None:
        pixels, ready = self._in_work.popleft()
        time.sleep(max(0.0, ready - time.perf_counter()))
        height, width = pixels.shape[:2]
        for row, column in np.ndindex(2, 2):  # copied, as a result is from the memory of a GPU
            target[row * height :, column * width :][:height, :width] = pixels

    def abandon(self) -> None:
        self._in_work.clear()

    def close(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--size", default="960x540")
    parser.add_argument("--milliseconds", type=float, default=35)
    parser.add_argument("--launches", type=int, default=40)
    parser.add_argument("--format", default="jpg")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    print("| busy | pictures/s | processor time of a picture, ms | cores |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder / "in", arguments.pictures, width, height)
        for number in range(arguments.repeat):
            naming = Naming(extension="." + arguments.format)
            jobs = plan_jobs([str(folder / "in")], str(folder / f"out{number}"), naming=naming)
            device = FakeDevice(arguments.milliseconds / 1000, arguments.launches)
            processor = time.process_time()
            done = list(run_jobs(device, jobs, Options()))
            end = time.perf_counter()
            processor = time.process_time() - processor
            if not all(isinstance(one, Done) for one in done):
                raise SystemExit(str(done))
            seconds = end - device.first
            print(
                f"| {100 * device.busy / seconds:.0f} % | {len(done) / seconds:.1f} | {1000 * processor / len(done):.0f} |"
                f" {available_cpus()} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
