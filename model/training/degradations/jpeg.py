"""JPEG compression on tensors, with real-valued qualities; no entropy coding, so this is what the decoder would see.

Close to libjpeg, not equal: chroma is the mean of 2x2 pixels and is repeated, borders are completed by zeros, and the quantization tables
are transposed, as in the official degradation.
"""

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# ITU-T T.81, Annex K.1: rows are vertical frequencies
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))

# JFIF 1.02: R, G, B -> Y, Cb, Cr
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


class _Constants(NamedTuple):
    """Of one device and type.

    Attributes:
        luma, chroma: transposed quantization tables, (8, 8).
        dct: orthonormal DCT matrix, (frequency, position).
        to_ycc, to_rgb: colours, (3, 3).
    """

    luma: Tensor
    chroma: Tensor
    dct: Tensor
    to_ycc: Tensor
    to_rgb: Tensor


@functools.cache
@torch.inference_mode(False)  # for later calls in training too
def _constants(device: torch.device, dtype: torch.dtype) -> _Constants:
    """Kept on the device, so that no call waits for a copy."""
    chroma = torch.full((8, 8), 99.0, dtype=torch.float64)
    chroma[:4, :4] = torch.tensor(_CHROMA)
    k, n = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    dct = torch.cos((2 * n + 1) * k * math.pi / 16) / 2
    dct[0] /= math.sqrt(2)
    all_of_them = (
        torch.tensor(_LUMA).T.contiguous(),
        chroma.T.contiguous(),
        dct,
        torch.tensor(_TO_YCC),
        torch.tensor(_TO_RGB),
    )
    return _Constants(*(constant.to(device, dtype) for constant in all_of_them))


def quality_factor(quality: Tensor) -> Tensor:
    """Factor of the quantization tables."""
    return torch.where(quality < 50, 50 / quality, 2 - quality / 50)


def _rounded_blocks(plane: Tensor, table: Tensor, dct: Tensor, factor: Tensor) -> Tensor:
    """(B, H, W), sides multiples of 8, 0..255 -> the same after quantization of its DCT coefficients."""
    batch, height, width = plane.shape
    steps = table * factor.to(plane)[:, None, None, None, None]
    blocks = (plane - 128).view(batch, height // 8, 8, width // 8, 8).transpose(2, 3)
    coefficients = (dct @ blocks @ dct.T / steps).round() * steps
    blocks = dct.T @ coefficients @ dct
    return blocks.transpose(2, 3).reshape(batch, height, width) + 128


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress pictures (B, 3, H, W), RGB in 0..1, with a quality each (B,), above 0 and up to 100."""
    height, width = x.shape[-2:]
    x = F.pad(x, (0, -width % 16, 0, -height % 16)) * 255
    constants = _constants(x.device, x.dtype)
    ycc = torch.einsum("ij,bjhw->bihw", constants.to_ycc, x)
    ycc[:, 1:] += 128
    factor = quality_factor(quality)
    small = F.avg_pool2d(ycc[:, 1:], 2)
    y = _rounded_blocks(ycc[:, 0], constants.luma, constants.dct, factor)
    cb, cr = (_rounded_blocks(small[:, i], constants.chroma, constants.dct, factor) for i in range(2))
    wide = [plane.repeat_interleave(2, 1).repeat_interleave(2, 2) - 128 for plane in (cb, cr)]
    rgb = torch.einsum("ij,bjhw->bihw", constants.to_rgb, torch.stack([y, *wide], dim=1))
    return rgb.clamp(0, 255)[..., :height, :width] / 255
