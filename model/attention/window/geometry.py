"""Between maps and windows: padding by reflection, cyclic shift, partition, and back.

All of it is address arithmetic: row i of the padded, shifted map is row `source_index(...)[i]` of the map itself.
"""

import torch
from torch import Tensor

from flashrib.model.config import Window


def reflect(index: Tensor, length: int) -> Tensor:
    """Map any index >= 0 into 0..length-1 by mirroring at both ends without repeating the edge, periodically (length 1: all 0)."""
    if torch.onnx.is_in_onnx_export():  # files state a minimum side, for which one reflection is enough
        return torch.minimum(index, -index + 2 * (length - 1))  # in operators that ONNX has, "number - tensor" is none
    period = max(2 * (length - 1), 1)
    index = index % period
    return torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index)


def padded_length(length: int, window: int) -> int:
    """Smallest multiple of `window` that is >= `length`."""
    return (length + window - 1) // window * window  # no negative numbers: ONNX divides integers towards zero


def source_index(length: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Index into the map for every position of its padded map after the roll by -shift: (padded,), int64."""
    padded = padded_length(length, window)
    index = torch.arange(padded, device=device)
    if shift:
        index = (index + shift) % padded
    return reflect(index, length)


def pad_and_roll(x: Tensor, window: Window, shift: Window) -> Tensor:
    """Pad a channels-last map (B, H, W, C) to whole windows by reflection at bottom and right, and roll it by -shift."""
    _, height, width, _ = x.shape
    if height % window[0] or shift[0]:
        x = x.index_select(1, source_index(height, window[0], shift[0], x.device))
    if width % window[1] or shift[1]:
        x = x.index_select(2, source_index(width, window[1], shift[1], x.device))
    return x


def split_heads(qkv: Tensor, window: Window, num_heads: int) -> Tensor:
    """View a padded map (B, H, W, 3*heads*D) as (3, B, rows, columns, heads, Wh, Ww, D), windows row-major; no copy."""
    batch, height, width, channels = qkv.shape
    wh, ww = window
    head_dim = channels // (3 * num_heads)
    view = qkv.view(batch, height // wh, wh, width // ww, ww, 3, num_heads, head_dim)
    return view.permute(5, 0, 1, 3, 6, 2, 4, 7)


def merge(x: Tensor, window: Window, shift: Window, size: tuple[int, int]) -> Tensor:
    """Put windows back: (B * windows, heads, Wh*Ww, D) -> (B, H, W, heads*D), rolled by +shift and cropped to `size` (H, W)."""
    (wh, ww), (height, width), (heads, head_dim) = window, size, (x.shape[1], x.shape[3])
    rows, columns = padded_length(height, wh) // wh, padded_length(width, ww) // ww
    batch = x.shape[0] // (rows * columns)
    x = x.view(batch, rows, columns, heads, wh, ww, head_dim).permute(0, 1, 4, 2, 5, 3, 6)
    x = x.reshape(batch, rows * wh, columns * ww, heads * head_dim)
    if shift[0]:
        x = x.roll(shift[0], dims=1)
    if shift[1]:
        x = x.roll(shift[1], dims=2)
    return x[:, :height, :width]


def fold_reflection(x: Tensor, length: int, dim: int) -> Tensor:
    """Adjoint of the padding by reflection: what was mirrored is added to the pixel that it came from.

    Args:
        x: a map whose dimension `dim` is padded.
        length: of that dimension before it was padded.
        dim: the dimension.

    Returns:
        The map with `length` positions along `dim`.
    """
    if length == 1:
        return x.sum(dim, keepdim=True)
    out = x.narrow(dim, 0, length).clone()
    start, descending = length, True
    while start < x.shape[dim]:  # stretches of length - 1 positions, backwards and forwards in turn
        size = min(length - 1, x.shape[dim] - start)
        stretch = x.narrow(dim, start, size)
        if descending:
            out.narrow(dim, length - 1 - size, size).add_(stretch.flip(dim))
        else:
            out.narrow(dim, 1, size).add_(stretch)
        start, descending = start + size, not descending
    return out
