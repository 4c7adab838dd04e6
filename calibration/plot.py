"""The curve of a calibration as a PNG: PSNR against the share of MACs in 8 bit, in grays and one colour."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIZE = (960, 560)
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 30, 50, 70
_INK, _GRID, _LINE, _LIMIT = "#222222", "#dddddd", "#1f6fb2", "#b23b1f"


def plot_curve(
    shares: Sequence[float], psnrs: Sequence[float], base: float, budget: float, chosen: int, title: str
) -> bytes:
    """Draw a PNG file.

    Args:
        shares: of the MACs outside of attention in 8 bit, 0..1, rising.
        psnrs: in dB, one for each.
        base: PSNR without quantization.
        budget: in dB below that.
        chosen: index of the point that was chosen.
        title: a line above.
    """
    low = min([*psnrs, base - budget])
    low, high = low - 0.15 * (base - low) - 1e-4, max([*psnrs, base]) + 0.1 * (base - low) + 1e-4
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=15)

    def at(share: float, psnr: float) -> tuple[float, float]:
        x = _LEFT + share * (SIZE[0] - _LEFT - _RIGHT)
        return x, _TOP + (high - psnr) / (high - low) * (SIZE[1] - _TOP - _BOTTOM)

    for tenth in range(0, 11, 2):
        x, _ = at(tenth / 10, low)
        draw.line([(x, _TOP), (x, SIZE[1] - _BOTTOM)], _GRID)
        draw.text((x, SIZE[1] - _BOTTOM + 8), f"{10 * tenth} %", _INK, font, "ma")
    step = _round_step((high - low) / 6)
    value = math.ceil(low / step) * step
    while value <= high:
        _, y = at(0, value)
        draw.line([(_LEFT, y), (SIZE[0] - _RIGHT, y)], _GRID)
        draw.text((_LEFT - 8, y), f"{value:.3f}", _INK, font, "rm")
        value += step
    draw.line([at(0, base - budget), at(1, base - budget)], _LIMIT, 2)
    draw.text(at(0.01, base - budget), f"budget {budget:g} dB", _LIMIT, font, "ld")
    points = [at(0, base), *(at(share, psnr) for share, psnr in zip(shares, psnrs, strict=True))]
    draw.line(points, _LINE, 3, joint="curve")
    for x, y in points:
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], _LINE)
    x, y = points[chosen + 1]
    draw.ellipse([x - 9, y - 9, x + 9, y + 9], outline=_INK, width=2)
    draw.text((SIZE[0] / 2, 14), title, _INK, font, "ma")
    draw.text((SIZE[0] / 2, SIZE[1] - 28), "share of the MACs outside of attention in 8 bit", _INK, font, "ma")
    draw.text((12, 14), "PSNR, dB", _INK, font, "la")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _round_step(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step)
