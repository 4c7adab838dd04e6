"""SST-Real in its deployment form, at its one noise level: picture and noise -> picture, both in 0..1."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.architectures.sst_real.config import SCALE, SSTRealConfig
from flashrib.model.architectures.sst_real.noise import noise_inside
from flashrib.model.deploy import Attention, Deployed, Norm, channels_first, top_left

CUBIC = -0.75  # PyTorch's coefficient of bicubic interpolation


def cubic_kernels() -> Tensor:
    """Bicubic interpolation by `SCALE` as a convolution of each channel: (48, 1, 5, 5), output c*16 + a*4 + b at (4i+a, 4j+b).

    Values beyond the edge are those of the edge. Source: Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    taps = torch.arange(-2, 3, dtype=torch.float64)
    phases = (torch.arange(SCALE, dtype=torch.float64) + 0.5) / SCALE - 0.5
    t = (phases[:, None] - taps).abs()
    near = (CUBIC + 2) * t**3 - (CUBIC + 3) * t**2 + 1
    far = CUBIC * (t**3 - 5 * t**2 + 8 * t - 4)
    weights = torch.where(t <= 1, near, torch.where(t < 2, far, 0))  # (phase, tap)
    return torch.einsum("ay,bx->abyx", weights, weights).flatten(0, 1)[:, None].repeat(3, 1, 1, 1)


class GatedFFN(nn.Module):
    """LayerNorm and gated FFN: (B, H, W, C) -> (B, H, W, C), without the residual."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = Norm(dim, affine=False)
        self.proj = nn.Linear(dim, 2 * hidden)
        self.dwc = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.last = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        a, b = channels_first(self.dwc, self.proj(self.norm(x))).chunk(2, dim=-1)
        y: Tensor = self.last(F.silu(a) * b)
        return y


class SSTRealBlock(nn.Module):
    """Layers and a 3x3 convolution with a residual around all, and the low-resolution features (or None) taken in: (B, H, W, C) -> same."""

    def __init__(
        self,
        fuse: tuple[nn.Linear, nn.Linear] | None,
        attentions: list[Attention],
        ffns: list[GatedFFN],
        conv: nn.Conv2d,
    ) -> None:
        super().__init__()
        self.fuse: nn.Linear | None = fuse and fuse[0]
        self.fuse_low: nn.Linear | None = fuse and fuse[1]
        self.attentions, self.ffns, self.conv = nn.ModuleList(attentions), nn.ModuleList(ffns), conv

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        y = x
        if self.fuse is not None and self.fuse_low is not None:
            y = self.fuse(x) + self.fuse_low(low)
        for attention, ffn in zip(self.attentions, self.ffns, strict=True):
            y = y + attention(y)
            y = y + ffn(y)
        return x + channels_first(self.conv, y)


class Blocks(nn.ModuleList):
    """All blocks in order."""

    def forward(self, first: Tensor, low: Tensor, read: Sequence[int]) -> list[Tensor]:
        """First and low-resolution features (B, H, W, C) -> features after the blocks `read`."""
        x, found = first, []
        for index, block in enumerate(self):
            x = block(x, low)
            if index in read:
                found.append(x)
        return found


class DeployedSSTReal(Deployed):
    """SST-Real in its deployment form: the inputs of `SSTRealConfig.inputs` -> (B, 3, 4H, 4W), not clamped; the official test pipeline.

    Attributes:
        heads: what reads after `guide_block`, where guidance wants it, and after the last block: features -> (B, n, 4H, 4W).
        last: their last convolutions in one, with the preconditioning and the way back to 0..1.
        skip: share of the noisy picture in the result, in 0..1.
    """

    config: SSTRealConfig
    enlarge: Tensor
    inside: Tensor | None

    def __init__(
        self, config: SSTRealConfig, blocks: list[SSTRealBlock], heads: list[nn.Sequential], skip: float
    ) -> None:
        super().__init__(config)
        self.first = nn.Conv2d(3 * SCALE**2, config.dim, 3, padding=1)
        self.low = nn.Conv2d(3, config.dim, 3, padding=1)
        self.blocks: nn.Module = Blocks(blocks)
        self.heads = nn.ModuleList(heads)
        self.last = nn.Conv2d(len(heads) * config.intermediate_dim, 3, 3, padding=1)
        self.skip = skip
        self.register_buffer("enlarge", cubic_kernels())
        noise = noise_inside(config)
        self.register_buffer(
            "inside", None if noise is None else config.sigma * F.pixel_unshuffle(noise.double(), SCALE)
        )

    def forward(self, input: Tensor, noise: Tensor | None = None) -> Tensor:
        height, width = input.shape[-2:]
        to = self.config.pad_to
        rows, columns = (height + to - 1) // to * to, (width + to - 1) // to * to
        low = F.pad(2 * input - 1, (0, columns - width, 0, rows - height), mode="reflect")
        if noise is not None:
            noise = top_left(noise, SCALE * rows, SCALE * columns)
        y = self.network(low, noise)
        return top_left(y, SCALE * height, SCALE * width)

    def network(self, low: Tensor, noise: Tensor | None) -> Tensor:
        """A complete picture (B, 3, H, W) in -1..1 and noise (B, 3, 4H, 4W), if it is no constant, -> (B, 3, 4H, 4W) in 0..1."""
        # the enlargement with its noise, as channels of the low-resolution map
        noisy = F.conv2d(F.pad(low, (2, 2, 2, 2), mode="replicate"), self.enlarge, groups=3)
        if noise is not None:
            noisy = noisy + self.config.sigma * F.pixel_unshuffle(noise, SCALE)
        elif self.inside is not None:
            noisy = noisy + self._repeated(self.inside, *low.shape[-2:])
        first = self.first(noisy).permute(0, 2, 3, 1)
        features = self.low(low).permute(0, 2, 3, 1)
        read = [self.config.guide_block, self.config.blocks - 1][-len(self.heads) :]
        maps = self.blocks(first, features, read)
        maps = maps if len(maps) == len(self.heads) else maps * 2  # both heads read after the last block
        made = [head((x + first).permute(0, 3, 1, 2)) for head, x in zip(self.heads, maps, strict=True)]
        y: Tensor = self.last(torch.cat(made, dim=1))
        return y + self.skip * F.pixel_shuffle(noisy, SCALE)

    @staticmethod
    def _repeated(square: Tensor, rows: int, columns: int) -> Tensor:
        """(1, C, A, A) -> (1, C, rows, columns)."""
        side = square.shape[-1]
        many = square.repeat(1, 1, (rows + side - 1) // side, (columns + side - 1) // side)
        return many[..., :rows, :columns]
