"""SST-Real: a denoiser that restores a photograph in one step from its enlargement with noise, with the official names of parameters.

Pictures are in -1..1 inside, and in 0..1 outside (`reference`, `upscale`). Formulas: docs/sst-real.md.
"""

import copy
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model import cuda_layers
from flashrib.model.architectures.sst_real.config import SCALE, SSTRealConfig
from flashrib.model.architectures.sst_real.noise import noise_inside
from flashrib.model.layers import LAYER_NORM_EPS, WindowAttention
from flashrib.model.network import Network
from flashrib.runtime.errors import UsageError

LEAKY_SLOPE = 0.2


def preconditioning(sigma: Tensor, sigma_data: float, use_skip: bool) -> tuple[Tensor, Tensor]:
    """(c_skip, c_out), which weigh the input and the network's output: D = c_skip x + c_out F(x)."""
    scaled = sigma / (0.1 if use_skip else 0.001)
    total = scaled.square() + sigma_data**2
    return sigma_data**2 / total, scaled / total.sqrt()


def noise_level(sigma: Tensor) -> Tensor:
    """c_noise, what the network is told about the noise."""
    return (sigma + 0.002).log() / 4


def normalise(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LayerNorm over the channels of (B, C, H, W) without affine part, then x * (1 + scale) + shift; both (B, C, 1, 1)."""
    mapped = x.permute(0, 2, 3, 1)
    mapped = F.layer_norm(mapped, mapped.shape[-1:], eps=LAYER_NORM_EPS).permute(0, 3, 1, 2)
    return mapped * (1 + scale) + shift


class NoiseEmbedding(nn.Module):
    """Noise level (B,), float32 or wider -> embedding (B, emb_channels): sinusoids, cosines first, and an MLP."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        half = self.channels // 2
        index = torch.arange(half, dtype=level.dtype, device=level.device)
        phase = level[:, None] * torch.exp(-math.log(10000) * index / half)
        waves = F.pad(torch.cat([phase.cos(), phase.sin()], dim=1), (0, self.channels - 2 * half))
        first = self.mlp[0]
        assert isinstance(first, nn.Linear)
        y: Tensor = self.mlp(waves.to(first.weight.dtype))
        return y


class GatedFFN(nn.Module):
    """[a, b] = dwc3(conv1(x)), w3(silu(a) * b): (B, C, H, W) -> (B, C, H, W)."""

    plainly = False

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.w12 = nn.Sequential(
            nn.Conv2d(dim, 2 * hidden, 1), nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        )
        self.w3 = nn.Conv2d(hidden, dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        if cuda_layers.usable(x) and not self.plainly:
            return cuda_layers.gated_ffn(self.w12, self.w3, self.dropout, x)
        a, b = self.w12(x).chunk(2, dim=1)
        y: Tensor = self.w3(self.dropout(F.silu(a) * b))
        return y


class SSTRealLayer(nn.Module):
    """Attention and FFN with modulated LayerNorms and gated residuals; modulation: six of (B, C, 1, 1)."""

    def __init__(self, config: SSTRealConfig, index: int) -> None:
        super().__init__()
        self.attn = WindowAttention(config.attentions[index])
        self.ffn = GatedFFN(config.dim, config.ffn_dim, config.dropout)

    def forward(self, x: Tensor, modulation: tuple[Tensor, ...]) -> Tensor:
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation
        x = x + gate_a * self.attn(normalise(x, scale_a, shift_a))
        y: Tensor = x + gate_f * self.ffn(normalise(x, scale_f, shift_f))
        return y


class SSTRealBlock(nn.Module):
    """Layers between a fusion with the low-resolution features (or none) and a 3x3 convolution; the residual skips all of it."""

    def __init__(self, config: SSTRealConfig, index: int) -> None:
        super().__init__()
        dim = config.dim
        self.gamma = nn.Parameter(torch.full((1, dim, 1, 1), 1e-3))
        self.fuse_lr = nn.Conv2d(2 * dim, dim, 1) if index <= config.fuse_till else None
        self.blocks = nn.ModuleList(SSTRealLayer(config, layer) for layer in range(len(config.windows)))
        self.out_conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.adaLN_modulation = nn.Linear(config.emb_channels, 6 * dim)

    def modulation(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale and gate of the attention, then of the FFN, each (B, C, 1, 1)."""
        values: Tensor = self.adaLN_modulation(embedding)
        return values[:, :, None, None].chunk(6, dim=1)

    def forward(self, x: Tensor, low: Tensor, embedding: Tensor) -> Tensor:
        modulation = self.modulation(embedding)
        y = x if self.fuse_lr is None else self.fuse_lr(torch.cat([x, low], dim=1))
        y = y.to(modulation[0].dtype)  # of autocast, as after a fusion: all blocks then have the same compiled layers
        for layer in self.blocks:
            y = layer(y, modulation)
        z: Tensor = x + self.gamma * self.out_conv(y)
        return z


def head(dim: int, width: int) -> nn.Sequential:
    """Features (B, C, H, W) -> picture (B, 3, 4H, 4W)."""

    def stage(channels: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(LEAKY_SLOPE)]

    enlarge = [nn.Upsample(scale_factor=2.0) for _ in range(2)]
    return nn.Sequential(
        *stage(dim), enlarge[0], *stage(width), enlarge[1], *stage(width), nn.Conv2d(width, 3, 3, padding=1)
    )


class Backbone(nn.Module):
    """Noisy picture (B, 3, 4H, 4W), noise level (B,) and low-resolution picture (B, 3, H, W) -> two pictures (B, 3, 4H, 4W)."""

    def __init__(self, config: SSTRealConfig) -> None:
        super().__init__()
        dim = config.dim
        self.guide_block = config.guide_block
        self.map_noise = NoiseEmbedding(config.noise_channels, config.emb_channels)
        self.proj_in = nn.Conv2d(3 * SCALE**2, dim, 3, padding=1)
        self.proj_lr = nn.Conv2d(3, dim, 3, padding=1)
        self.proj_body = nn.ModuleList(SSTRealBlock(config, index) for index in range(config.blocks))
        self.up_i = head(dim, config.intermediate_dim)
        self.up_f = head(dim, config.intermediate_dim)

    def forward(self, x: Tensor, level: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.map_noise(level)
        first = self.proj_in(F.pixel_unshuffle(x, SCALE))
        low = self.proj_lr(low)
        y = first
        guide = None
        for index, block in enumerate(self.proj_body):
            y = block(y, low, embedding)
            if index == self.guide_block:
                guide = self.up_i(y + first)
        assert guide is not None
        return guide, self.up_f(y + first)


class SSTReal(Network):
    """The whole network: `forward` is the official one, `reference` and `upscale` are its test pipeline."""

    config: SSTRealConfig

    def __init__(self, config: SSTRealConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)

    def denoise(self, x: Tensor, sigma: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """What both heads make of a noisy picture: D_i and D_f, (B, 3, 4H, 4W) in -1..1.

        Args:
            x: (B, 3, 4H, 4W), a picture in -1..1 plus sigma times normal noise.
            sigma: noise level of each picture, (B,), >= 0; any dtype.
            low: (B, 3, H, W), the low-resolution picture in -1..1.
        """
        sigma = sigma.to(torch.promote_types(x.dtype, torch.float32))
        weights = preconditioning(sigma, self.config.sigma_data, self.config.use_skip)
        c_skip, c_out = (weight[:, None, None, None] for weight in weights)
        guide, last = self.model(x, noise_level(sigma), low)
        skipped = c_skip * x
        return skipped + c_out * guide, skipped + c_out * last

    def forward(self, x: Tensor, sigma: Tensor, low: Tensor) -> Tensor:
        """As `denoise`, both heads combined: D_i + lambda (D_f - D_i)."""
        guide, last = self.denoise(x, sigma, low)
        return guide + self.config.guidance * (last - guide)

    def reference(self, *inputs: Tensor) -> Tensor:
        """The official test pipeline.

        Args:
            inputs: the picture (B, 3, H, W), RGB in 0..1, and noise, see `SSTRealConfig.inputs`; without it, that inside the network.

        Returns:
            (B, 3, 4H, 4W), not clamped.

        Raises:
            UsageError: too little noise.
        """
        picture = inputs[0]
        height, width = picture.shape[-2:]
        rows, columns = (side + -side % self.config.pad_to for side in (height, width))
        noise = inputs[1] if len(inputs) > 1 else self._noise_inside(picture, rows, columns)
        if noise.shape[-2] < SCALE * rows or noise.shape[-1] < SCALE * columns:
            raise UsageError(
                f"noise of {tuple(noise.shape)} for a picture of {tuple(picture.shape)}: it needs at least {SCALE * rows}x{SCALE * columns}"
            )
        low = F.pad((picture - 0.5) / 0.5, (0, columns - width, 0, rows - height), mode="reflect")
        enlarged = F.interpolate(low, scale_factor=SCALE, mode="bicubic", align_corners=False)
        sigma = torch.full((picture.shape[0],), self.config.sigma, device=picture.device)
        x = enlarged + self.config.sigma * noise[..., : SCALE * rows, : SCALE * columns]
        y: Tensor = self(x, sigma, low)[..., : SCALE * height, : SCALE * width]
        return (y + 1) / 2

    def upscale(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        """`reference` with given noise or without any.

        Args:
            picture: (B, 3, H, W), RGB in 0..1.
            noise: see `SSTRealConfig.inputs`; `flashrib.runtime.noise.NoiseMap` has that of a seed. None: that inside the network, and
                zeros where there is none, which make a smoother picture than the official pipeline does, always the same.
        """
        return self.reference(picture) if noise is None else self.reference(picture, noise)

    def with_noise(self, source: str | int) -> "SSTReal":
        other = copy.copy(self)
        other.config = dataclasses.replace(self.config, noise_source=source)
        return other

    def _noise_inside(self, picture: Tensor, rows: int, columns: int) -> Tensor:
        """The noise of a network that is given none: (1, 3, 4 rows, 4 columns)."""
        inside = noise_inside(self.config)
        if inside is None:
            return picture.new_zeros(1, 3, SCALE * rows, SCALE * columns)
        times = (-(-SCALE * side // inside.shape[-1]) for side in (rows, columns))
        return inside.to(picture).repeat(1, 1, *times)

    def initialise(self) -> None:
        """No modulation, so that every layer starts as the identity."""
        for module in self.modules():
            if isinstance(module, SSTRealBlock):
                nn.init.zeros_(module.adaLN_modulation.weight)
                nn.init.zeros_(module.adaLN_modulation.bias)

    def undecayed(self) -> set[str]:
        """The bias MLPs, all biases of the heads and the weights of their last convolutions, and three further kinds of biases."""

        def exempt(name: str) -> bool:
            last = name.rpartition(".")[2]
            if last in ("to_hidden", "hidden_b", "to_q", "to_k"):
                return True
            if ".up_i." in name or ".up_f." in name:
                return last == "bias" or name.endswith(".8.weight")
            return name.endswith(("proj_lr.bias", "adaLN_modulation.bias", "fuse_lr.bias"))

        return {name for name, _ in self.named_parameters() if exempt(name)}

    def unquantized(self) -> set[str]:
        return {"model.proj_in", "model.proj_lr", "model.up_i", "model.up_f"}
