"""CLEAR in its deployment form: one product for q, k and v, D^-1/2 in the norm of q, and the steps between the products as fused passes.

The passes (`passes.py`) are plain PyTorch on the CPU and in an exported file, and Triton kernels on a GPU. What does not fold, and why:
nothing crosses the RMS norms, so the bias of k stays; with pooling, weights that do not add up to 1 keep the bias of v out of the
output projection; the scale of proportional attention depends on the size.
"""

import dataclasses
import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.architectures.clear_dit.config import BASE, LARGEST_SIDE, ClearConfig
from flashrib.model.architectures.clear_dit.network import Embedding, axis_angles, rotation
from flashrib.model.architectures.clear_dit.passes import add_gated, gelu_linear, modulate, norm_and_rotate, pool_into
from flashrib.model.attention.disc import Grid, disc_attention, pool_tokens
from flashrib.model.deploy import Deployed


class Rotation(nn.Module):
    """Cosines and sines of the tokens of any grid, from tables of the angles of one axis."""

    row_cos: Tensor
    row_sin: Tensor
    column_cos: Tensor
    column_sin: Tensor

    def __init__(self, config: ClearConfig) -> None:
        super().__init__()
        self.config = config
        self.still = config.axes[0] // 2
        for name, axis in (("row", 1), ("column", 2)):
            angles = axis_angles(config, axis, LARGEST_SIDE)
            self.register_buffer(f"{name}_cos", angles.cos().float(), persistent=False)
            self.register_buffer(f"{name}_sin", angles.sin().float(), persistent=False)

    def table(self, rows: Tensor, columns: Tensor, height: int, width: int, text: int, still: float) -> Tensor:
        first = torch.full((height, width, self.still), still)
        # looked up, since a slice would make the exporter bound the sides by the length of the table
        down = rows[torch.arange(height)][:, None].expand(height, width, -1)
        across = columns[torch.arange(width)][None].expand(height, width, -1)
        image = torch.cat((first, down, across), -1).flatten(0, 1)
        return torch.cat((torch.full((text, image.shape[1]), still), image))

    def forward(self, grid: Grid, text: int, device: torch.device) -> tuple[Tensor, Tensor]:
        if not torch.onnx.is_in_onnx_export():
            return rotation(self.config, grid, text, device)
        cos = self.table(self.row_cos, self.column_cos, *grid, text, 1.0)
        return cos, self.table(self.row_sin, self.column_sin, *grid, text, 0.0)


@dataclasses.dataclass(frozen=True)
class Where:
    """Which tokens a pass is about.

    Attributes:
        grid: (H, W) of the picture's tokens on this device.
        text: number of text tokens.
        angles: cosines and sines of these tokens.
        tokens: number of tokens of the whole picture and the text.
    """

    grid: Grid
    text: int
    angles: tuple[Tensor, Tensor]
    tokens: int


class Exchange(Protocol):
    """Attention over keys that several devices have; see `flashrib.model.architectures.clear_dit.bands.Exchange`."""

    @property
    def room(self) -> tuple[int, int, int]: ...

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, text: int, radius: int, scale: float, weight: Tensor | None
    ) -> Tensor: ...


class Stream(nn.Module):
    """Weights of one stream's attention: q, k, v as one product, and the RMS norms' weights, float32, that of q times D^-1/2."""

    def __init__(self, config: ClearConfig) -> None:
        super().__init__()
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.norm_q = nn.Parameter(torch.ones(config.head_dim))
        self.norm_k = nn.Parameter(torch.ones(config.head_dim))


class FoldedAttention(nn.Module):
    """The attention of one or two streams.

    Attributes:
        exchange: how several devices share it, see `flashrib.model.architectures.clear_dit.bands`; None: there is one.
    """

    def __init__(self, config: ClearConfig, double: bool) -> None:
        super().__init__()
        self.config = config
        self.image = Stream(config)
        self.text = Stream(config) if double else None
        self.pool = nn.Parameter(torch.zeros(config.down, config.down)) if config.down else None
        self.exchange: Exchange | None = None

    def forward(self, x: Tensor, words: Tensor | None, where: Where) -> Tensor:
        """x (B, n, C), or (B, H*W, C) and words (B, T, C) -> (B, n, C), text first."""
        config, grid, text = self.config, where.grid, where.text
        alone = 0, 0, grid[0] * grid[1] // config.down**2 if config.down else 0
        above, below, pooled = alone if self.exchange is None else self.exchange.room
        joint = self._joint(x, words, text, above, below, pooled)
        text_norms = self.image if self.text is None else self.text
        q, k, v = norm_and_rotate(
            joint,
            *where.angles,
            (self.image.norm_q, self.image.norm_k),
            (text_norms.norm_q, text_norms.norm_k),
            text,
            pooled,
        )
        scale = 1.0
        if not torch.onnx.is_in_onnx_export():
            scale = config.logit_factor(where.tokens)
        elif config.proportional:
            count = torch.scalar_tensor(where.tokens * (10 if config.down else 1), dtype=torch.float32)
            q = q * (torch.log(count) / math.log(BASE)).sqrt().to(q.dtype)
        if config.radius is None:
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)
        if self.exchange is not None:
            return self.exchange.attention(q, k, v, text, config.radius, scale, self.pool).flatten(2)
        if self.pool is not None:
            if k.shape[1] == q.shape[1]:
                k, v = (torch.cat((t, pool_tokens(t, self.pool, grid, text)), 1) for t in (k, v))
            else:
                pool_into(k, v, self.pool, grid, text)
        return disc_attention(q, k, v, grid, text, config.radius, scale, pooled)[0].flatten(2)

    def _joint(self, x: Tensor, words: Tensor | None, text: int, above: int, below: int, pooled: int) -> Tensor:
        """q, k and v of all tokens (B, n, 3, h, D), with room for tokens of other devices above and below the image's own; on a GPU
        with room for the pooled ones, and each product in its place at once."""
        config, image = self.config, self.image.qkv
        if words is not None and self.text is not None:
            pieces = [(self.text.qkv, words, 0), (image, x, text + above)]
        elif above:
            pieces = [(image, x[:, :text], 0), (image, x[:, text:], text + above)]
        else:
            pieces = [(image, x, 0)]
        batch, stop = x.shape[0], pieces[-1][2] + pieces[-1][1].shape[1]
        if x.is_cuda:
            whole = x.new_empty(batch, stop + below + pooled, 3 * config.dim)
            for linear, given, first in pieces:
                for one in range(batch):
                    place = whole[one, first : first + given.shape[1]]
                    torch.addmm(linear.bias, given[one], linear.weight.t(), out=place)
        else:
            parts = [linear(given) for linear, given, _ in pieces]
            if above:
                parts.insert(1, x.new_zeros(batch, above, 3 * config.dim))
            if below:
                parts.append(x.new_zeros(batch, below, 3 * config.dim))
            whole = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        return whole.reshape(batch, -1, 3, config.heads, config.head_dim)


class FoldedMLP(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(gelu_linear(x, self.first.weight, self.first.bias))
        return y


class FoldedDouble(nn.Module):
    """See `flashrib.model.architectures.clear_dit.network.DoubleBlock`."""

    def __init__(self, config: ClearConfig) -> None:
        super().__init__()
        dim = config.dim
        self.modulation, self.text_modulation = nn.Linear(dim, 6 * dim), nn.Linear(dim, 6 * dim)
        self.attention = FoldedAttention(config, double=True)
        self.out, self.text_out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.mlp, self.text_mlp = FoldedMLP(dim), FoldedMLP(dim)

    def forward(self, x: Tensor, words: Tensor, embedding: Tensor, where: Where) -> tuple[Tensor, Tensor]:
        text = where.text
        mod, text_mod = self.modulation(embedding).chunk(6, -1), self.text_modulation(embedding).chunk(6, -1)
        out = self.attention(modulate(x, mod[1], mod[0]), modulate(words, text_mod[1], text_mod[0]), where)
        x = add_gated(x, mod[2], self.out(out[:, text:]))
        words = add_gated(words, text_mod[2], self.text_out(out[:, :text]))
        x = add_gated(x, mod[5], self.mlp(modulate(x, mod[4], mod[3])))
        words = add_gated(words, text_mod[5], self.text_mlp(modulate(words, text_mod[4], text_mod[3])))
        return x, words


class FoldedSingle(nn.Module):
    """See `flashrib.model.architectures.clear_dit.network.SingleBlock`; the output projection in two parts, so nothing is
    concatenated."""

    def __init__(self, config: ClearConfig) -> None:
        super().__init__()
        dim = config.dim
        self.modulation = nn.Linear(dim, 3 * dim)
        self.attention = FoldedAttention(config, double=False)
        self.mlp = nn.Linear(dim, 4 * dim)
        self.out, self.mlp_out = nn.Linear(dim, dim), nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor, embedding: Tensor, where: Where) -> Tensor:
        shift, scale, gate = self.modulation(embedding).chunk(3, -1)
        y = modulate(x, scale, shift)
        hidden = gelu_linear(y, self.mlp.weight, self.mlp.bias)
        out = self.out(self.attention(y, None, where))
        return add_gated(x, gate, out, self.mlp_out(hidden))


class DeployedClear(Deployed):
    """The transformer; arguments and result as of `flashrib.model.architectures.clear_dit.network.ClearTransformer`."""

    config: ClearConfig

    def __init__(self, config: ClearConfig) -> None:
        super().__init__(config)
        dim = config.dim
        self.embedding = Embedding(config)
        self.context_embedder, self.x_embedder = nn.Linear(config.joint_dim, dim), nn.Linear(config.in_channels, dim)
        self.rotation = Rotation(config)
        self.double_blocks = nn.ModuleList(FoldedDouble(config) for _ in range(config.layers))
        self.single_blocks = nn.ModuleList(FoldedSingle(config) for _ in range(config.single_layers))
        self.modulation = nn.Linear(dim, 2 * dim)
        self.proj_out = nn.Linear(dim, config.in_channels)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        grid = (hidden_states.shape[1], hidden_states.shape[2])
        text = encoder_hidden_states.shape[1]
        angles = self.rotation(grid, text, hidden_states.device)
        tokens = text + grid[0] * grid[1]
        return self.denoise(
            hidden_states, encoder_hidden_states, pooled_projections, timestep, guidance, angles, tokens
        )

    def denoise(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        guidance: Tensor | None,
        angles: tuple[Tensor, Tensor],
        tokens: int,
    ) -> Tensor:
        """`forward` for rows of a picture of `tokens` tokens, text included, with the angles of text and rows."""
        grid = (hidden_states.shape[1], hidden_states.shape[2])
        where = Where(grid, encoder_hidden_states.shape[1], angles, tokens)
        embedding = self.embedding(timestep, guidance, pooled_projections)
        x = self.x_embedder(hidden_states.flatten(1, 2))
        words = self.context_embedder(encoder_hidden_states)
        for block in self.double_blocks:
            x, words = block(x, words, embedding, where)
        x = torch.cat((words, x), 1)
        for block in self.single_blocks:
            x = block(x, embedding, where)
        scale, shift = self.modulation(embedding).chunk(2, -1)
        y: Tensor = self.proj_out(modulate(x[:, where.text :], scale, shift))
        return y.reshape(y.shape[0], *grid, -1)
