"""What the bundled model `photo` makes of degraded photographs, beside bicubic enlargement and the model for clean pictures.

    python benchmarks/photo.py FOLDER [--device cuda] [--page SHEET.jpg --show NAME:ROW,COLUMN ...]

Each picture of FOLDER is degraded as the training configuration's `degradation = "photo"` does it, seeded by its place, and as files
are: rounded to 8 bits. Printed per picture and on average: Y-PSNR and SSIM (border of 2), and NIQE, which needs no original and is
better where it is lower. `--page` draws details of 96x96 input pixels: input, clean model, photo model, original.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from flashrib.model.training.config import TrainConfig
from flashrib.model.training.data import make_pair
from flashrib.model.training.degraded import degradation_of, degrade_pairs
from flashrib.runtime import bundled_model, bundled_weights, open_session, read_picture, upscale_array
from flashrib.runtime.pictures.folder import list_pictures
from flashrib.runtime.pictures.imresize import imresize
from flashrib.runtime.quality.metrics import psnr, ssim
from flashrib.runtime.quality.niqe import niqe
from flashrib.runtime.sessions.protocol import Session

SCALE = 2
DETAIL = 96  # input pixels
SIDE, MARGIN, CAPTION = 288, 8, 26
WAYS = ("bicubic", "x2", "photo")

Pixels = NDArray[np.uint8]


def sheet(rows: list[list[Pixels]]) -> Image.Image:
    """Details of the same place side by side, a row for each picture."""
    labels = ("input", "model for clean pictures", "model photo", "original")
    width, height = len(labels) * (SIDE + MARGIN) + MARGIN, len(rows) * (SIDE + MARGIN) + CAPTION + MARGIN
    page = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for column, label in enumerate(labels):
        x = MARGIN + column * (SIDE + MARGIN)
        draw.text((x, 4), label, "black", font)
        for row, details in enumerate(rows):
            detail = Image.fromarray(details[column]).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            page.paste(detail, (x, CAPTION + row * (SIDE + MARGIN)))
    return page


def session(name: str, device: str) -> Session:
    """A bundled model in float32."""
    if device == "cpu":
        return open_session(bundled_model(name))
    return open_session(bundled_weights(name), "torch", device=device, precision="fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--device", default="cpu", help="cuda: the weights in PyTorch, float32, in place of the ONNX files"
    )
    parser.add_argument("--page", type=Path, help="the picture to write")
    parser.add_argument("--show", nargs="+", default=[], metavar="NAME:ROW,COLUMN", help="details, in input pixels")
    arguments = parser.parse_args()
    paths = list_pictures(arguments.folder)
    pairs = [make_pair(read_picture(path).pixels, SCALE) for path in paths]
    degradation = degradation_of(TrainConfig(data=("",), degradation="photo", scale=SCALE))
    assert degradation is not None
    pairs = degrade_pairs(degradation, pairs, torch.device("cpu"))
    places = dict(shown.split(":") for shown in arguments.show)
    figures: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    rows = []
    print("| picture | " + " | ".join(f"{way}: dB, SSIM, NIQE" for way in WAYS) + " |")
    with session("x2", arguments.device) as clean, session("photo", arguments.device) as photo:
        for path, pair in zip(paths, pairs, strict=True):
            results = {
                "bicubic": imresize(pair.low, SCALE),
                "x2": upscale_array(clean, pair.low),
                "photo": upscale_array(photo, pair.low),
            }
            for way, result in results.items():
                figures[way].append((psnr(result, pair.high, SCALE), ssim(result, pair.high, SCALE), niqe(result)))
            print(
                f"| {path.stem} | " + " | ".join("{:.2f}, {:.3f}, {:.2f}".format(*figures[w][-1]) for w in WAYS) + " |"
            )
            if path.stem in places:
                top, left = map(int, places[path.stem].split(","))
                low = pair.low[top : top + DETAIL, left : left + DETAIL]
                high = np.s_[top * SCALE : (top + DETAIL) * SCALE, left * SCALE : (left + DETAIL) * SCALE]
                rows.append([low, results["x2"][high], results["photo"][high], pair.high[high]])
    means = {way: np.mean(values, axis=0) for way, values in figures.items()}
    print("| **average** | " + " | ".join("**{:.2f}, {:.3f}, {:.2f}**".format(*means[way]) for way in WAYS) + " |")
    if arguments.page:
        sheet(rows).save(arguments.page, quality=90)


if __name__ == "__main__":
    main()
