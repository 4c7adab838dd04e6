"""The log of a training run: a CSV file with a row per validation, and its curves as a picture."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from flashrib.runtime.artifacts.files import write_whole

LOG = "log.csv"
CURVES = "curves.png"
SIZE = (960, 560)
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 30, 60, 60
_INK, _GRID = "#222222", "#dddddd"
_COLOURS = ("#1f6fb2", "#b23b1f", "#2e8b57", "#8a5fb5", "#c98a1b", "#4a4a4a", "#1b9aaa", "#d1495b")

Points = Sequence[tuple[float, float]]


def add_row(folder: Path, row: Mapping[str, float]) -> None:
    """Append a row to the log, with a line of names before the first one, and draw the curves of PSNR again."""
    path = folder / LOG
    fresh = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="") as file:
        log = csv.writer(file)
        if fresh:
            log.writerow(row)
        log.writerow([f"{value:.6g}" for value in row.values()])
    curves = read_curves(path)
    if curves:
        write_whole(folder / CURVES, line_chart(curves, "steps", "Y-PSNR, dB"))


def read_curves(path: Path) -> dict[str, Points]:
    """Columns of PSNR of a log by name, over the steps; empty where it has no line of names, as those of older versions."""
    with path.open(newline="") as file:
        names, *rows = csv.reader(file)
    if names[0] != "step":
        return {}
    columns = [(index, name) for index, name in enumerate(names) if name.startswith("psnr_y")]
    return {
        (name.partition(" ")[2] or "held out"): [
            (float(row[0]), float(row[index])) for row in rows if len(row) == len(names)
        ]
        for index, name in columns
    }


def line_chart(curves: Mapping[str, Points], x_label: str, y_label: str) -> bytes:
    """Draw a PNG file.

    Args:
        curves: name -> points (x, y), x rising; values that are not finite are left out.
        x_label: what x is.
        y_label: what y is.
    """
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in curves.items()}
    values = [value for points in finite.values() for _, value in points] or [0.0]
    right = max((x for points in finite.values() for x, _ in points), default=1.0) or 1.0
    margin = 0.08 * (max(values) - min(values)) or 0.5
    low, high = min(values) - margin, max(values) + margin
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=15)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + x / right * (SIZE[0] - _LEFT - _RIGHT),
            _TOP + (high - y) / (high - low) * (SIZE[1] - _TOP - _BOTTOM),
        )

    for value in _ticks(low, high):
        draw.line([at(0, value), at(right, value)], _GRID)
        draw.text((_LEFT - 8, at(0, value)[1]), f"{value:g}", _INK, font, "rm")
    for value in _ticks(0, right):
        draw.line([at(value, low), at(value, high)], _GRID)
        draw.text((at(value, low)[0], SIZE[1] - _BOTTOM + 8), f"{value:g}", _INK, font, "ma")
    place = float(_LEFT)
    for index, (name, points) in enumerate(finite.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        if len(points) > 1:
            draw.line([at(*point) for point in points], colour, 3, joint="curve")
        elif points:
            x, y = at(*points[0])
            draw.ellipse([x - 4, y - 4, x + 4, y + 4], colour)
        draw.text((place, 30), name, colour, font, "la")
        place += draw.textlength(name, font) + 24
    draw.text((12, 8), y_label, _INK, font, "la")
    draw.text((SIZE[0] / 2, SIZE[1] - 26), x_label, _INK, font, "ma")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _ticks(low: float, high: float) -> list[float]:
    """Up to seven round values from `low` to `high`."""
    step = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(step))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]
