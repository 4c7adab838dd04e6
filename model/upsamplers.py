"""The heads of the networks: features (B, C, H, W) and the input picture (B, 3, H, W) -> (B, 3, rH, rW)."""

import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.config import UpsamplerConfig

LEAKY_SLOPE = 0.1


def nearest(picture: Tensor, scale: int) -> Tensor:
    """Repeat every pixel scale x scale times."""
    return F.interpolate(picture, scale_factor=float(scale), mode="nearest")


class PixelShuffleDirect(nn.Module):
    """One 3x3 convolution, pixel shuffle, plus the picture enlarged by repetition."""

    def __init__(self, dim: int, config: UpsamplerConfig) -> None:
        super().__init__()
        self.scale = config.scale
        self.up_conv = nn.Conv2d(dim, 3 * config.scale**2, 3, padding=1)

    def forward(self, features: Tensor, picture: Tensor) -> Tensor:
        return F.pixel_shuffle(self.up_conv(features), self.scale) + nearest(picture, self.scale)


class PixelShuffle(nn.Module):
    """Convolution, LeakyReLU, convolution, pixel shuffle in one step, convolution, plus the picture enlarged by repetition."""

    def __init__(self, dim: int, config: UpsamplerConfig) -> None:
        super().__init__()
        n = config.intermediate_dim
        self.scale = config.scale
        self.feature_conv = nn.Conv2d(dim, n, 3, padding=1)
        self.up_conv = nn.Conv2d(n, n * config.scale**2, 3, padding=1)
        self.final_conv = nn.Conv2d(n, 3, 3, padding=1)

    def forward(self, features: Tensor, picture: Tensor) -> Tensor:
        u = self.up_conv(F.leaky_relu(self.feature_conv(features), LEAKY_SLOPE))
        y: Tensor = self.final_conv(F.pixel_shuffle(u, self.scale))
        return y + nearest(picture, self.scale)


class NearestConv(nn.Module):
    """Repetition and convolution in stages, from the features plus an embedding of the picture; no residual at the end."""

    def __init__(self, dim: int, config: UpsamplerConfig) -> None:
        super().__init__()
        n = config.intermediate_dim
        steps = (3,) if config.scale == 3 else (2,) * (config.scale.bit_length() - 1)
        self.f_img = nn.Sequential(
            nn.Conv2d(3, dim, 1), nn.Conv2d(dim, dim, 7, padding=3), nn.LeakyReLU(LEAKY_SLOPE), nn.Conv2d(dim, dim, 1)
        )
        stages: list[nn.Module] = [nn.Conv2d(dim, n, 3, padding=1), nn.LeakyReLU(LEAKY_SLOPE)]
        for step in steps:
            stages += [nn.Upsample(scale_factor=step), nn.Conv2d(n, n, 3, padding=1), nn.LeakyReLU(LEAKY_SLOPE)]
        self.f = nn.Sequential(*stages, nn.Conv2d(n, 3, 3, padding=1))

    def forward(self, features: Tensor, picture: Tensor) -> Tensor:
        return self.f(features + self.f_img(picture))


def build_upsampler(dim: int, config: UpsamplerConfig) -> nn.Module:
    """Return the head that `config` describes, for `dim` feature channels."""
    kinds = {"pixelshuffle_direct": PixelShuffleDirect, "pixelshuffle": PixelShuffle, "nn+conv": NearestConv}
    return kinds[config.kind](dim, config)
