"""The heads of the networks on a CUDA GPU: channels-last features and the picture -> the enlarged picture."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import pad

from flashrib.model.gpu.convolution import convolve
from flashrib.model.gpu.layers import Convolution, affine
from flashrib.model.gpu.passes import ALIGNED
from flashrib.model.gpu.spatial import shuffle
from flashrib.model.sizes import round_up
from flashrib.model.upsamplers import LEAKY_SLOPE, PixelShuffle, PixelShuffleDirect
from flashrib.runtime.errors import UsageError

Sides = tuple[bool, bool]  # drop what lies before the first, beyond the last row (or column)


def composed(up_conv: nn.Conv2d, final_conv: nn.Conv2d, rows: Sides, columns: Sides) -> tuple[Tensor, Tensor]:
    """Convolution, pixel shuffle and convolution as one 5x5 convolution in front of a pixel shuffle: weight (3r^2, n, 5, 5), bias (3r^2).

    Output (c, a, b) at pixel i sums final_conv's taps over enlarged pixels, which lie at (a', b') of pixels i - 1, i and i + 1, each a
    3x3 convolution of its own. `final_conv` sees zeros beyond the enlarged picture, while the 5x5 convolution would see what up_conv
    makes beyond the last pixels: so pixels at the border take weights without the taps that lead there, those that `rows` and
    `columns` name.
    """
    (up_weight, up_bias), (final_weight, final_bias) = affine(up_conv), affine(final_conv)
    outputs, middle = final_weight.shape[:2]
    n = up_weight.shape[1]
    r = round((up_weight.shape[0] / middle) ** 0.5)
    up_weight, up_bias = up_weight.view(middle, r, r, n, 3, 3), up_bias.view(middle, r, r)
    weight = up_weight.new_zeros(outputs, r, r, n, 5, 5)
    bias = final_bias[:, None, None].expand(outputs, r, r).clone()
    for a in range(r):
        for b in range(r):
            for dy in range(3):
                for dx in range(3):
                    (i, y), (j, x) = divmod(a + dy - 1, r), divmod(b + dx - 1, r)
                    if (
                        (i == -1 and rows[0])
                        or (i == 1 and rows[1])
                        or (j == -1 and columns[0])
                        or (j == 1 and columns[1])
                    ):
                        continue
                    tap = final_weight[:, :, dy, dx]
                    weight[:, a, b, :, i + 1 : i + 4, j + 1 : j + 4] += torch.einsum(
                        "cm,mnyx->cnyx", tap, up_weight[:, y, x]
                    )
                    bias[:, a, b] += tap @ up_bias[:, y, x]
    return weight.flatten(0, 2), bias.flatten()


class DirectHead(nn.Module):
    """`PixelShuffleDirect`: features (B, H, W, C) and picture (B, 3, H, W) -> (B, 3, rH, rW) in the picture's dtype."""

    bias: Tensor

    def __init__(self, head: PixelShuffleDirect, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale = head.scale
        self.conv = Convolution(head.up_conv.weight, dtype)
        self.register_buffer("bias", affine(head.up_conv)[1].float())

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        return shuffle(self.conv(x), self.bias, picture, self.scale)


class ShuffleHead(nn.Module):
    """`PixelShuffle` with its last two convolutions in one on the small picture, exact up to the border; H and W >= 3.

    Neither the n channels of the enlarged picture nor their shuffled copy are ever stored.
    """

    feature_bias: Tensor
    bias: Tensor
    border_weight: Tensor
    border_bias: Tensor

    def __init__(self, head: PixelShuffle, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale = head.scale
        self.feature_conv = Convolution(head.feature_conv.weight, dtype)
        feature_bias = affine(head.feature_conv)[1]
        self.width = round_up(feature_bias.numel(), ALIGNED)
        self.register_buffer("feature_bias", pad(feature_bias, (0, self.width - feature_bias.numel())).to(dtype))
        weight, bias = composed(head.up_conv, head.final_conv, (False, False), (False, False))
        self.conv = Convolution(weight, dtype)
        self.register_buffer("bias", bias.float())
        first, no, last = (True, False), (False, False), (False, True)
        # sides before corners, which belong to two sides and overwrite them
        sides = [(first, no), (last, no), (no, first), (no, last)]
        self.borders = [*sides, (first, first), (first, last), (last, first), (last, last)]
        variants = [composed(head.up_conv, head.final_conv, *border) for border in self.borders]
        missing = self.width - weight.shape[1]
        self.register_buffer(
            "border_weight", torch.stack([pad(w, (0, 0, 0, 0, 0, missing)) for w, _ in variants]).to(dtype)
        )
        self.register_buffer("border_bias", torch.stack([b - bias for _, b in variants]).to(dtype))

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        exporting = torch.onnx.is_in_onnx_export()
        if not exporting and min(picture.shape[2:]) < 3:
            raise UsageError(f"this network needs pictures of at least 3x3 pixels, got {tuple(picture.shape)}")
        x = F.leaky_relu_(self.feature_conv(x) + self.feature_bias, LEAKY_SLOPE)
        y = self.conv(x)
        if exporting:  # a graph has no place to write to
            y = self._joined(x, y)
        else:
            for index, (rows, columns) in enumerate(self.borders):
                target = y[..., : self.bias.numel()]
                for dim, (first, last) in ((2, columns), (1, rows)):
                    if first or last:
                        target = target.narrow(dim, 0 if first else target.shape[dim] - 1, 1)
                target.copy_(self._border(x, index))
        return shuffle(y, self.bias, picture, self.scale)

    def _border(self, x: Tensor, index: int) -> Tensor:
        """The pixels of a border: (B, 1, W, 3r^2) of a row, (B, H, 1, 3r^2) of a column, (B, 1, 1, 3r^2) of a corner."""
        rows, columns = self.borders[index]
        padding = [0, 0, 2, 2, 2, 2]  # nothing for channels, then left, right, top, bottom
        # the first or last pixel needs itself and two neighbours inside; what lies outside is zero
        if any(columns):
            x = x[:, :, :3] if columns[0] else x[:, :, -3:]
            padding[3 if columns[0] else 2] = 0
        if any(rows):
            x = x[:, :3] if rows[0] else x[:, -3:]
            padding[5 if rows[0] else 4] = 0
        return convolve(pad(x, padding), self.border_weight[index], [0, 0]) + self.border_bias[index]

    def _joined(self, x: Tensor, y: Tensor) -> Tensor:
        """y with its borders in their places, put together out of pieces."""
        width = y.shape[3] - self.bias.numel()
        top, bottom, left, right, *corners = (pad(self._border(x, i), (0, width)) for i in range(len(self.borders)))
        first = torch.cat([corners[0], top[:, :, 1:-1], corners[1]], 2)
        last = torch.cat([corners[2], bottom[:, :, 1:-1], corners[3]], 2)
        inside = torch.cat([left[:, 1:-1], y[:, 1:-1, 1:-1], right[:, 1:-1]], 2)
        return torch.cat([first, inside, last], 1)


class PlainHead(nn.Module):
    """Any other head, by its own module."""

    def __init__(self, head: nn.Module, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.channels = channels
        self.head = head.to(dtype)

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        y: Tensor = self.head(x[..., : self.channels].permute(0, 3, 1, 2), picture.to(x.dtype))
        return y.to(picture.dtype)


def build_head(head: nn.Module, channels: int, dtype: torch.dtype) -> nn.Module:
    """The GPU form of an upsampler whose features have `channels` channels."""
    if isinstance(head, PixelShuffleDirect):
        return DirectHead(head, dtype)
    if isinstance(head, PixelShuffle):
        return ShuffleHead(head, dtype)
    return PlainHead(head, channels, dtype)
