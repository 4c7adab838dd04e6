"""Between pixels as pictures hold them and what networks take, on whatever device the tensors are.

The same arithmetic as for sessions that take batches (`flashrib.runtime.tiling.run`). PyTorch hardly knows unsigned numbers of 16 bits:
they travel as int16 with the same bits.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def to_batch(pixels: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
    """Return pixels (H, W, 3) or (H, W), uint8, uint16 as int16, or float32, as (1, 3, H, W) of `dtype`, integers over 0..1."""
    import torch

    if pixels.ndim == 2:
        pixels = pixels[:, :, None].expand(-1, -1, 3)
    batch = pixels.permute(2, 0, 1)[None]
    if pixels.dtype == torch.uint8:
        batch = batch.float() / 255
    elif pixels.dtype == torch.int16:
        batch = (batch.int() & 0xFFFF).float() / 65535
    return batch.to(dtype).contiguous()


def to_pixels(batch: "torch.Tensor", dtype: "torch.dtype", *, gray: bool) -> "torch.Tensor":
    """Return a result (1, 3, H, W) as pixels of `dtype`: uint8, int16 that stands for uint16, or float32.

    Integers are rounded half to even after clamping. (H, W, 3), or with `gray` (H, W), the mean of the channels.
    """
    import torch

    pixels = batch[0].float()
    pixels = pixels.mean(0) if gray else pixels.permute(1, 2, 0)
    if dtype == torch.uint8:
        return (pixels.clamp(0, 1) * 255).round().to(dtype)
    if dtype == torch.int16:
        return (pixels.clamp(0, 1) * 65535).round().int().to(dtype)  # keeps the low 16 bits
    return pixels
