"""CLEAR on several devices: each has a band of rows of the picture, and the whole text (docs/clear.md).

A picture's token sees a disc, so a band needs keys and values of `radius - 1` rows of each neighbour. Text queries see everything: each
device computes them over its own rows, the first one over the text's keys as well, and the results are merged exactly by their
log-sum-exps. Pooled keys are gathered from all. Everything else is done token by token.
"""

import itertools
import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flashrib.model.architectures.clear_dit.deploy import DeployedClear, FoldedAttention
from flashrib.model.architectures.clear_dit.network import rotation
from flashrib.model.attention.disc import Grid, merge_attention, pool_tokens
from flashrib.model.attention.disc.band import disc_attention_band
from flashrib.runtime.errors import UsageError

_ALIGNED = 8  # rows of a tile of the kernels: bands of whole tiles waste nothing


def band_rows(height: int, parts: int, radius: int, step: int = 1) -> list[tuple[int, int]]:
    """Cut `height` rows into bands of nearly equal height: first and last + 1 row of each.

    Args:
        height: rows of tokens.
        parts: number of bands.
        radius: of the disc: a band must have `radius - 1` rows, so that it needs no more than its neighbours'.
        step: bands begin at its multiples, as pooling wants it.

    Raises:
        UsageError: the picture is too low for so many bands.
    """
    aligned = math.lcm(_ALIGNED, step) if height >= parts * max(radius, _ALIGNED) * 2 else step
    edges = [round(height * i / parts / aligned) * aligned for i in range(parts)] + [height]
    bands = list(itertools.pairwise(edges))
    least = max(radius - 1, 1)
    if any(last - first < least for first, last in bands):
        raise UsageError(
            f"{height} rows of tokens cannot be cut into {parts} bands of {least} rows or more (radius {radius}): use fewer devices"
        )
    return bands


class Exchange:
    """What one device knows about its band, and the attention over it."""

    def __init__(self, grid: Grid, radius: int, down: int, group: dist.ProcessGroup | None) -> None:
        self.group = group
        self.rank, self.parts = dist.get_rank(group), dist.get_world_size(group)
        self.width = grid[1]
        self.bands = band_rows(grid[0], self.parts, radius, max(down, 1))
        self.first, self.last = self.bands[self.rank]
        self.above = min(radius - 1, self.first)
        self.below = min(radius - 1, grid[0] - self.last)
        self.down = down

    def _peer(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)

    @property
    def room(self) -> tuple[int, int, int]:
        """Tokens of the rows above and below, and pooled keys: what the attention wants room for among its operands."""
        return self.above * self.width, self.below * self.width, sum(self._pooled())

    def _pooled(self) -> list[int]:
        """Pooled keys of each device."""
        return [(last - first) * self.width // self.down**2 if self.down else 0 for first, last in self.bands]

    def neighbours(self, k: Tensor, v: Tensor, radius: int) -> tuple[Tensor, Tensor]:
        """k and v of the rows above and below a band (B, rows*W, 2, h, D), from the devices that have them; k, v (B, rows*W, h, D)."""
        reach = (radius - 1) * self.width

        def edge(part: slice) -> Tensor:
            return torch.stack((k[:, part], v[:, part]), 2)  # so that one message carries both

        above, below = (k.new_empty(k.shape[0], count, 2, *k.shape[2:]) for count in self.room[:2])
        steps = []
        if self.rank > 0:
            steps.append(dist.P2POp(dist.isend, edge(slice(0, reach)), self._peer(self.rank - 1), self.group))
            steps.append(dist.P2POp(dist.irecv, above, self._peer(self.rank - 1), self.group))
        if self.rank < self.parts - 1:
            last = slice(k.shape[1] - reach, None)
            steps.append(dist.P2POp(dist.isend, edge(last), self._peer(self.rank + 1), self.group))
            steps.append(dist.P2POp(dist.irecv, below, self._peer(self.rank + 1), self.group))
        for work in dist.batch_isend_irecv(steps) if steps and reach else ():
            work.wait()
        return above, below

    def gather(self, x: Tensor, counts: list[int]) -> list[Tensor]:
        """`x` (B, own count, ...) of every device, whose counts may differ."""
        most = max(counts)
        padded = x.new_zeros([x.shape[0], most, *x.shape[2:]])
        padded[:, : x.shape[1]] = x
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, self.group)
        return [part[:, :count] for part, count in zip(parts, counts, strict=True)]

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, text: int, radius: int, scale: float, weight: Tensor | None
    ) -> Tensor:
        """Attention of the text and the band's own rows; what is missing of k and v is fetched into its place.

        Args:
            q: (B, n, h, D), n = text + (rows above + own rows + rows below) * W; rows of others may hold anything.
            k: (B, n, h, D), or (B, n + pooled, h, D), likewise.
            v: likewise.
            text: number of text tokens.
            radius: of the disc.
            scale: of the logits.
            weight: of pooling, or None.

        Returns:
            (B, text + own rows * W, h, D); text results are those over the whole picture, on all devices.
        """
        rows, width = self.last - self.first, self.width
        start = text + self.above * width
        stop = start + rows * width
        n = q.shape[1]
        received = self.neighbours(k[:, start:stop], v[:, start:stop], radius)
        for index, x in enumerate((k, v)):
            x[:, text:start], x[:, stop:n] = received[0][:, :, index], received[1][:, :, index]
        pooled = 0
        if weight is not None:
            mine = torch.stack([pool_tokens(x[:, start:stop], weight, (rows, width), 0) for x in (k, v)], 2)
            keys, values = torch.cat(self.gather(mine, self._pooled()), 1).unbind(2)
            pooled = keys.shape[1]
            if k.shape[1] == n:
                k, v = torch.cat((k, keys), 1), torch.cat((v, values), 1)
            else:
                k[:, n:], v[:, n:] = keys, values
        out, lse = disc_attention_band(
            q,
            k,
            v,
            (self.above + rows + self.below, width),
            text,
            radius,
            scale,
            pooled,
            (self.above, self.above + rows),
            (0 if self.rank == 0 else start, stop),
        )
        outs = self.gather(out[:, :text].contiguous(), [text] * self.parts)
        lses = self.gather(lse[:, :, :text].transpose(1, 2).contiguous(), [text] * self.parts)
        merged, _ = merge_attention(torch.stack(outs), torch.stack(lses).transpose(2, 3))
        return torch.cat((merged, out[:, start:stop]), 1)


class BandedClear(nn.Module):
    """The transformer on several devices, one process each; arguments and result as of `DeployedClear`, the same on all of them."""

    def __init__(self, network: DeployedClear, group: dist.ProcessGroup | None = None) -> None:
        """Take the weights of `network`, which must be the same in all processes of `group` (None: all).

        Raises:
            UsageError: full attention, which needs no bands but all keys everywhere.
        """
        super().__init__()
        if network.config.radius is None:
            raise UsageError(
                f"{network.config.name} has full attention, and only a disc (a radius) can be cut into bands"
            )
        self.network, self.group = network, group

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """See `flashrib.model.architectures.clear_dit.network.ClearTransformer.forward`.

        Raises:
            UsageError: a picture too low for so many devices.
        """
        config = self.network.config
        assert config.radius is not None
        grid = (hidden_states.shape[1], hidden_states.shape[2])
        text = encoder_hidden_states.shape[1]
        exchange = Exchange(grid, config.radius, config.down, self.group)
        seen = slice(
            text + (exchange.first - exchange.above) * grid[1], text + (exchange.last + exchange.below) * grid[1]
        )
        angles = [torch.cat((t[:text], t[seen])) for t in rotation(config, grid, text, hidden_states.device)]
        for module in self.network.modules():
            if isinstance(module, FoldedAttention):
                module.exchange = exchange
        try:
            y = self.network.denoise(
                hidden_states[:, exchange.first : exchange.last],
                encoder_hidden_states,
                pooled_projections,
                timestep,
                guidance,
                (angles[0], angles[1]),
                text + grid[0] * grid[1],
            )
        finally:
            for module in self.network.modules():
                if isinstance(module, FoldedAttention):
                    module.exchange = None
        return torch.cat(exchange.gather(y, [last - first for first, last in exchange.bands]), 1)
