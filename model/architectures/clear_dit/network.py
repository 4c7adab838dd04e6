"""The transformer of FLUX with CLEAR's attention, with the names of its published weights (docs/clear.md has the formulas)."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.architectures.clear_dit.config import ClearConfig
from flashrib.model.attention.disc import Grid, disc_attention, pool_tokens
from flashrib.model.network import Network

EPS = 1e-6  # of LayerNorm and of the RMS norms
# Made once, in float32 as the official code makes them: times 1000, another rounding of the exponential is an error of 1e-4 in the
# result.
_FREQUENCIES = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)


@functools.cache
@torch.inference_mode(False)  # for later calls in training too
def _frequencies(device: torch.device) -> Tensor:
    """On a device, from the first call on: a CUDA graph cannot copy them from the CPU."""
    return _FREQUENCIES.to(device)


def axis_angles(config: ClearConfig, axis: int, length: int) -> Tensor:
    """Angles (length, channels/2) of positions 0, 1, ... along an axis, float64: id * (10000 ntk)^(-2j/d).

    From integers, unlike the official pipelines, whose positions in bfloat16 are exact to 256 only.
    """
    channels = config.axes[axis]
    steps = torch.arange(0, channels, 2, dtype=torch.float64) / channels
    return torch.arange(length, dtype=torch.float64)[:, None] * (10000 * config.ntk_factor) ** -steps


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)  # for later calls in training too
def rotation(config: ClearConfig, grid: Grid, text: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (text + H*W, D/2), float32: text tokens are at position 0 of all axes, a picture's at (0, row, column)."""
    height, width = grid
    still = torch.zeros(height, width, config.axes[0] // 2, dtype=torch.float64)
    rows = axis_angles(config, 1, height)[:, None].expand(-1, width, -1)
    columns = axis_angles(config, 2, width)[None].expand(height, -1, -1)
    angles = torch.cat((still, rows, columns), -1).reshape(height * width, -1)
    angles = torch.cat((torch.zeros(text, angles.shape[1], dtype=torch.float64), angles))
    return angles.cos().float().to(device), angles.sin().float().to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring channels (2j, 2j+1) of (B, n, h, D) by the angle of (n, D/2)."""
    wide = torch.promote_types(x.dtype, cos.dtype)
    even, odd = x.to(wide).reshape(*x.shape[:-1], -1, 2).unbind(-1)
    cos, sin = cos[:, None].to(wide), sin[:, None].to(wide)
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2).to(x.dtype)


def sinusoids(values: Tensor) -> Tensor:
    """(B) -> (B, 256): cosines, then sines of the values times 10000^(-j/128)."""
    angles = values.float()[:, None] * (_FREQUENCIES if values.device.type == "cpu" else _frequencies(values.device))
    return torch.cat((angles.cos(), angles.sin()), -1)


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LayerNorm without affine part over the channels of (B, n, C), times 1 + scale (B, C), plus shift (B, C)."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale[:, None]) + shift[:, None]


def bounded(x: Tensor) -> Tensor:
    """Values that float16 has."""
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x


class RMSNorm(nn.Module):
    """x / root mean square over the last axis, statistics in float32 at least, times a weight."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)
        return wide.to(x.dtype) * self.weight


class Modulation(nn.Module):
    """The linear layer that makes scales, shifts and gates of the embedding of time, guidance and text: (B, C) -> `parts` times (B,
    C)."""

    def __init__(self, dim: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(dim, parts * dim)

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        y: Tensor = self.linear(embedding)
        return y.chunk(self.parts, -1)


class TwoLayers(nn.Module):
    """linear_2(SiLU(linear_1))."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(channels, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return y


class Embedding(nn.Module):
    """Time, guidance and text vector -> (B, C), through SiLU already."""

    def __init__(self, config: ClearConfig) -> None:
        super().__init__()
        self.timestep_embedder = TwoLayers(256, config.dim)
        self.guidance_embedder = TwoLayers(256, config.dim) if config.guidance else None
        self.text_embedder = TwoLayers(config.pooled_dim, config.dim)

    def forward(self, timestep: Tensor, guidance: Tensor | None, pooled: Tensor) -> Tensor:
        x: Tensor = self.timestep_embedder(sinusoids(1000 * timestep).to(pooled.dtype))
        if self.guidance_embedder is not None and guidance is not None:
            x = x + self.guidance_embedder(sinusoids(1000 * guidance).to(pooled.dtype))
        return F.silu(x + self.text_embedder(pooled))


class GELUProjection(nn.Module):
    """GELU (tanh) of a linear layer."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GELUProjection(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y


class Processor(nn.Module):
    """Holder of the weights that pool keys and values."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.spatial_weight = nn.Parameter(torch.full((1, 1, 1, factor, 1, factor, 1), 1 / factor**2))


class ClearAttention(nn.Module):
    """Projections, RMS norms, rotation and CLEAR's attention of [text; picture], without the output projections of single blocks."""

    def __init__(self, config: ClearConfig, double: bool) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.norm_q, self.norm_k = RMSNorm(config.head_dim), RMSNorm(config.head_dim)
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        if double:
            self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(dim, dim) for _ in range(3))
            self.norm_added_q, self.norm_added_k = RMSNorm(config.head_dim), RMSNorm(config.head_dim)
            self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
            self.to_add_out = nn.Linear(dim, dim)
        if config.down:
            self.processor = Processor(config.down)

    def heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.config.heads, self.config.head_dim)

    def forward(self, x: Tensor, text_stream: Tensor | None, grid: Grid, text: int) -> Tensor:
        """Attention of the stream x (B, n, C), or of the text stream (B, T, C) and the picture's x (B, H*W, C); (B, n, C)."""
        q, k, v = self.norm_q(self.heads(self.to_q(x))), self.norm_k(self.heads(self.to_k(x))), self.heads(self.to_v(x))
        if text_stream is not None:
            added_q = self.norm_added_q(self.heads(self.add_q_proj(text_stream)))
            added_k = self.norm_added_k(self.heads(self.add_k_proj(text_stream)))
            added_v = self.heads(self.add_v_proj(text_stream))
            q, k, v = (torch.cat(pair, 1) for pair in ((added_q, q), (added_k, k), (added_v, v)))
        cos, sin = rotation(self.config, grid, text, x.device)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return attention_of(self.config, q, k, v, grid, text, self.pool_weight()).flatten(2)

    def pool_weight(self) -> Tensor | None:
        return self.processor.spatial_weight if self.config.down else None


def attention_of(
    config: ClearConfig, q: Tensor, k: Tensor, v: Tensor, grid: Grid, text: int, weight: Tensor | None
) -> Tensor:
    """The attention of a configuration: q, k, v (B, n, h, D), normed and rotated -> (B, n, h, D)."""
    scale = config.head_dim**-0.5 * config.logit_factor(text + grid[0] * grid[1])
    if config.radius is None:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)
    pooled = 0
    if weight is not None:
        pooled = grid[0] * grid[1] // config.down**2
        k, v = (torch.cat((x, pool_tokens(x, weight, grid, text)), 1) for x in (k, v))
    return disc_attention(q, k, v, grid, text, config.radius, scale, pooled)[0]


class DoubleBlock(nn.Module):
    """A block with weights of its own for each of the two streams."""

    def __init__(self, config: ClearConfig) -> None:
        super().__init__()
        dim = config.dim
        self.norm1, self.norm1_context = Modulation(dim, 6), Modulation(dim, 6)
        self.attn = ClearAttention(config, double=True)
        self.ff, self.ff_context = FeedForward(dim), FeedForward(dim)

    def forward(self, x: Tensor, words: Tensor, embedding: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        shift_x, scale_x, gate_x, shift_xm, scale_xm, gate_xm = self.norm1(embedding)
        shift_w, scale_w, gate_w, shift_wm, scale_wm, gate_wm = self.norm1_context(embedding)
        text = words.shape[1]
        out = self.attn(modulated(x, scale_x, shift_x), modulated(words, scale_w, shift_w), grid, text)
        x = x + gate_x[:, None] * self.attn.to_out[0](out[:, text:])
        words = words + gate_w[:, None] * self.attn.to_add_out(out[:, :text])
        x = x + gate_xm[:, None] * self.ff(modulated(x, scale_xm, shift_xm))
        words = words + gate_wm[:, None] * self.ff_context(modulated(words, scale_wm, shift_wm))
        return bounded(x), bounded(words)


class SingleBlock(nn.Module):
    """A block on both streams as one, attention and MLP side by side."""

    def __init__(self, config: ClearConfig) -> None:
        super().__init__()
        dim = config.dim
        self.norm = Modulation(dim, 3)
        self.proj_mlp, self.proj_out = nn.Linear(dim, 4 * dim), nn.Linear(5 * dim, dim)
        self.attn = ClearAttention(config, double=False)

    def forward(self, x: Tensor, embedding: Tensor, grid: Grid, text: int) -> Tensor:
        shift, scale, gate = self.norm(embedding)
        y = modulated(x, scale, shift)
        both = torch.cat((self.attn(y, None, grid, text), F.gelu(self.proj_mlp(y), approximate="tanh")), -1)
        return bounded(x + gate[:, None] * self.proj_out(both))


class ClearTransformer(Network):
    """One step of denoising: latent picture, text and time -> velocity.

    Parameters have the names of diffusers' `FluxTransformer2DModel`, and CLEAR's `attn.processor.spatial_weight`.
    """

    config: ClearConfig

    def __init__(self, config: ClearConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.time_text_embed = Embedding(config)
        self.context_embedder = nn.Linear(config.joint_dim, dim)
        self.x_embedder = nn.Linear(config.in_channels, dim)
        self.transformer_blocks = nn.ModuleList(DoubleBlock(config) for _ in range(config.layers))
        self.single_transformer_blocks = nn.ModuleList(SingleBlock(config) for _ in range(config.single_layers))
        self.norm_out = Modulation(dim, 2)
        self.proj_out = nn.Linear(dim, config.in_channels)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Denoise one step.

        Args:
            hidden_states: (B, H, W, in_channels), the packed latents on their grid of tokens; H and W multiples of `config.down`.
            encoder_hidden_states: (B, T, joint_dim), from T5; padding is attended to, so T belongs to the model (512).
            pooled_projections: (B, pooled_dim), from CLIP.
            timestep: (B), 0..1.
            guidance: (B), such as 3.5; only where `config.guidance`.

        Returns:
            (B, H, W, in_channels).
        """
        grid = (hidden_states.shape[1], hidden_states.shape[2])
        text = encoder_hidden_states.shape[1]
        embedding = self.time_text_embed(timestep, guidance, pooled_projections)
        x = self.x_embedder(hidden_states.flatten(1, 2))
        words = self.context_embedder(encoder_hidden_states)
        for block in self.transformer_blocks:
            x, words = block(x, words, embedding, grid)
        x = torch.cat((words, x), 1)
        for block in self.single_transformer_blocks:
            x = block(x, embedding, grid, text)
        scale, shift = self.norm_out(embedding)
        y: Tensor = self.proj_out(modulated(x[:, text:], scale, shift))
        return y.reshape(y.shape[0], *grid, -1)
