"""PNG encoders side by side: seconds and size of one picture.

    python benchmarks/png.py [--megapixels 24]

The picture is docs/pictures/demo_hr.png, enlarged with noise so that it compresses like a photograph. Medians of three, each encoder in
turn. zlib: our writer without isal, as where that package has no wheel.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from flashrib.runtime.pictures import png
from flashrib.runtime.pictures.blocks import available_cpus
from flashrib.runtime.pictures.png import PngWriter

from benchmarks.commands import photograph  # isort: skip


def ours(pixels: np.ndarray, level: int, isal: bool) -> int:
    """Encode by our writer; returns the size in bytes."""
    library, png._fast = png._fast, png._fast if isal else None
    file = io.BytesIO()
    try:
        height, width, channels = pixels.shape
        with PngWriter(file, height, width, channels, 8, level=level) as writer:
            writer.write(pixels)
    finally:
        png._fast = library
    return file.tell()


def pillow(pixels: np.ndarray, level: int) -> int:
    """Encode by Pillow; returns the size in bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=level)
    return file.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=24)
    arguments = parser.parse_args()
    width = round((arguments.megapixels * 1e6 * 1.5) ** 0.5)
    pixels = np.asarray(photograph(width, round(width / 1.5)))
    rows: dict[str, Callable[[], int]] = {
        f"Pillow, level {level}": lambda level=level: pillow(pixels, level) for level in (1, 4, 6)
    }
    for isal in (True, False):
        for level in (1, 2, 3):
            name = f"ours, level {level}, {'isal' if isal else 'zlib'}"
            rows[name] = lambda level=level, isal=isal: ours(pixels, level, isal)
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    sizes = {}
    for _ in range(3):
        for name, encode in rows.items():
            began = time.perf_counter()
            sizes[name] = encode()
            seconds[name].append(time.perf_counter() - began)
    print(f"{pixels.shape[1]}x{pixels.shape[0]}, {available_cpus()} CPUs\n\n| encoder | seconds | MB |\n|---|---|---|")
    for name in rows:
        print(f"| {name} | {statistics.median(seconds[name]):.2f} | {sizes[name] / 1e6:.1f} |")


if __name__ == "__main__":
    main()
