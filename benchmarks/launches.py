"""What Python's thread spends on a frame with one GPU and with several: frames from memory to memory, without files.

    python benchmarks/launches.py [--sizes 960x540 1920x1080] [--frames 60] [--busy 4]

Bundled sst-light x2, fp16. "submit" is the time in which a frame is handed to a GPU, which is what cannot be shared; "collect" waits for
the result. Shapes are recorded as CUDA graphs as the session does it, or with a lower limit ("eager"). `--busy` adds threads that compute
in Python and NumPy meanwhile. Nothing else should run on the machine.
"""

import argparse
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from flashrib.runtime import bundled_weights
from flashrib.runtime.sessions.protocol import Pixels
from flashrib.runtime.sessions.torch_gpu import worker
from flashrib.runtime.sessions.torch_gpu.session import open_gpu_session
from flashrib.runtime.tiling.frames import upscale_frames

WARM_UP = 8  # frames: compilers, libraries, and the recording on each GPU


def frames(count: int, height: int, width: int) -> Iterator[Pixels]:
    generator = np.random.default_rng(0)
    made = [generator.integers(0, 256, (height, width, 3), np.uint8) for _ in range(4)]
    return itertools.islice(itertools.cycle(made), count)


def timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            seconds.append(time.perf_counter() - start)

    return run


def measure(devices: list[str], height: int, width: int, count: int, busy: int) -> tuple[float, float, float]:
    """Frames per second, and milliseconds of a frame in `submit` and in `collect`."""
    over = threading.Event()

    def work() -> None:
        pixels = np.zeros((2 * height, 2 * width, 3), np.uint8)
        while not over.is_set():
            pixels.astype(np.float32).astype(np.uint8)
            sum(range(2000))

    with open_gpu_session(bundled_weights(), devices) as session:
        for _ in upscale_frames(session, frames(WARM_UP * len(devices), height, width)):
            pass
        submitting: list[float] = []
        collecting: list[float] = []
        for one in session.workers:
            vars(one).update(submit=timed(one.submit, submitting), collect=timed(one.collect, collecting))
        threads = [threading.Thread(target=work) for _ in range(busy)]
        for thread in threads:
            thread.start()
        start = time.perf_counter()
        for _ in upscale_frames(session, frames(count, height, width)):
            pass
        seconds = time.perf_counter() - start
        over.set()
        for thread in threads:
            thread.join()
    return count / seconds, 1000 * sum(submitting) / count, 1000 * sum(collecting) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["960x540", "1920x1080"])
    parser.add_argument("--devices", nargs="+", default=["cuda:0", "cuda:0,cuda:1"])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--busy", type=int, default=0)
    arguments = parser.parse_args()
    share = worker.GRAPH_SHARE
    print("| size | devices | | frames/s | submit, ms | collect, ms |\n|---|---|---|---|---|---|", flush=True)
    for size, names in itertools.product(arguments.sizes, arguments.devices):
        width, height = map(int, size.split("x"))
        for how, worker.GRAPH_SHARE in (("as the session does", share), ("eager", 0.0)):
            rate, submit, collect = measure(names.split(","), height, width, arguments.frames, arguments.busy)
            print(f"| {size} | {names} | {how} | {rate:.1f} | {submit:.1f} | {collect:.1f} |", flush=True)


if __name__ == "__main__":
    main()
