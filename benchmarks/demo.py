"""Upscales the demonstration picture with the bundled model, and shows what it gains over bicubic interpolation.

    .venv/bin/python benchmarks/demo.py

Writes into demo-output/: the upscaled picture, and a comparison of bicubic, flashrib and the original, with an enlarged detail: the
one where the squared error falls most.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from flashrib.runtime.cli import main as flashrib
from flashrib.runtime.errors import FlashribError
from flashrib.runtime.jobs.folders import made_folder
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.pictures.imresize import imresize
from flashrib.runtime.quality.metrics import psnr, rgb_to_y

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"

DETAIL = 96  # pixels of the original per side of the detail
ZOOM = 4
COLUMN = DETAIL * ZOOM
MARGIN, CAPTION = 12, 30

Pixels = NDArray[np.uint8]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--hr", type=Path, default=PICTURES / "demo_hr.png", help="the original")
    parser.add_argument("--lr", type=Path, default=PICTURES / "demo_lr.png", help="the picture to upscale")
    parser.add_argument("--model", help="another model than the bundled one")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo-output"), help="folder of the results")
    arguments = parser.parse_args(argv)

    upscaled_file, comparison_file = arguments.output / "upscaled.png", arguments.output / "comparison.png"
    model = ["--model", arguments.model] if arguments.model else []
    try:
        with made_folder(arguments.output):
            code = flashrib(["upscale", str(arguments.lr), "-o", str(upscaled_file), "--overwrite", *model])
        if code:
            return code
        low, upscaled, original = (read_picture(path).pixels for path in (arguments.lr, upscaled_file, arguments.hr))
        scale = upscaled.shape[0] // low.shape[0]
        bicubic = imresize(low, scale)
        quality = [psnr(picture, original, border=scale) for picture in (bicubic, upscaled)]
        labels = [f"bicubic, {quality[0]:.2f} dB", f"flashrib, {quality[1]:.2f} dB", "original"]
        write_picture(comparison_file, Picture(comparison([bicubic, upscaled, original], labels)), overwrite=True)
    except FlashribError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"Y-PSNR against the original: bicubic {quality[0]:.2f} dB, flashrib {quality[1]:.2f} dB")
    print(f"upscaled picture:            {upscaled_file}")
    print(f"side by side, with a detail: {comparison_file}")
    return 0


def comparison(pictures: list[Pixels], labels: list[str]) -> Pixels:
    """Lay out (bicubic, upscaled, original), all (H, W, 3): the whole pictures above, the detail enlarged below, labels between."""
    bicubic, upscaled, original = pictures
    top, left = best_detail(bicubic, upscaled, original)
    height, width = original.shape[:2]
    reduced = (COLUMN, round(COLUMN * height / width))
    size = (len(pictures) * (COLUMN + MARGIN) + MARGIN, reduced[1] + COLUMN + CAPTION + 3 * MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(18)
    side = COLUMN / width  # pixels of the sheet per pixel of the reduced picture
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x = MARGIN + index * (COLUMN + MARGIN)
        image = Image.fromarray(picture)
        sheet.paste(image.resize(reduced, Image.Resampling.LANCZOS), (x, MARGIN))
        corner = x + left * side, MARGIN + top * side
        draw.rectangle((*corner, corner[0] + DETAIL * side, corner[1] + DETAIL * side), outline="red", width=2)
        draw.text((x, MARGIN + reduced[1] + MARGIN // 2), label, fill="black", font=font)
        detail = image.crop((left, top, left + DETAIL, top + DETAIL))
        sheet.paste(detail.resize((COLUMN, COLUMN), Image.Resampling.NEAREST), (x, reduced[1] + CAPTION + 2 * MARGIN))
    return np.array(sheet)


def best_detail(bicubic: Pixels, upscaled: Pixels, original: Pixels) -> tuple[int, int]:
    """(top, left) of the square of DETAIL pixels a side where the squared error of the luma falls most."""
    luma = rgb_to_y(original)
    gain = np.square(rgb_to_y(bicubic) - luma) - np.square(rgb_to_y(upscaled) - luma)
    total = np.pad(gain.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[DETAIL:, DETAIL:] - total[:-DETAIL, DETAIL:] - total[DETAIL:, :-DETAIL] + total[:-DETAIL, :-DETAIL]
    top, left = np.unravel_index(np.argmax(sums), sums.shape)
    return int(top), int(left)


if __name__ == "__main__":
    sys.exit(main())
