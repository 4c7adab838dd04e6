"""Patches of more pictures than a device can hold: a part of them lies there, and is exchanged while the training goes on.

All pictures stand in one endless sequence, shuffled anew each time that all had their turn. The device holds `pool` neighbours of it;
after every `rotate` steps the oldest eighth makes room for those that come next, which other processes have read meanwhile. What lies
there at a step depends on the seed and the step alone, so a run that is continued sees the same pictures.
"""

import os
import random
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from flashrib.model.training.config import TrainConfig
from flashrib.model.training.data import Pair, PatchSampler, pairs_of, too_small
from flashrib.model.training.parallel import World

MOST_WORKERS = 16


def executor() -> Executor:
    """Processes that read pictures."""
    return ProcessPoolExecutor(min(os.cpu_count() or 1, MOST_WORKERS), mp_context=get_context("spawn"))


class StreamSampler(PatchSampler):
    """See the module, and `PatchSampler`."""

    def __init__(
        self, paths: list[Path], partners: Mapping[Path, Path], config: TrainConfig, world: World, device: torch.device
    ) -> None:
        self.patch, self.scale, self.device = config.patch, config.scale, device
        self._paths, self._partners, self._config, self._world = paths, partners, config, world
        self._exchanged = max(1, config.pool // 8)
        self._orders: dict[int, list[Path]] = {}
        self._turn = -1
        self._held: deque[list[tuple[Tensor, Tensor, tuple[int, int]]]] = deque()
        self._coming: deque[Future[list[Pair]]] = deque()
        self._workers = executor()

    def turn(self, step: int) -> None:
        """Have the pictures of a step on the device.

        Raises:
            PictureError: one cannot be read.
            UsageError: none of those that belong there is large enough.
        """
        turn = step // self._config.rotate
        if turn == self._turn:
            return
        if turn != self._turn + 1 or not self._held:  # a beginning, or a run that is continued
            self._held.clear()
            self._ask(turn * self._exchanged, self._config.pool)
        for future in self._coming:
            self._held.append([self._sent(pair) for pair in future.result()])
        while len(self._held) > self._config.pool:
            self._held.popleft()
        self._turn = turn
        self._ask(turn * self._exchanged + self._config.pool, self._exchanged)
        everything = [part for parts in self._held for part in parts]
        if not everything:
            raise too_small(len(self._held), self.patch * self.scale)
        lows, highs, sizes = zip(*everything, strict=True)
        self.take(torch.cat(lows), torch.cat(highs), sizes)

    def close(self) -> None:
        """End the other processes."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _ask(self, start: int, count: int) -> None:
        """Have the pictures of the sequence from `start` on read."""
        config = self._config
        self._coming.clear()
        for path in map(self._picture, range(start, start + count)):
            partner = self._partners.get(path)
            self._coming.append(
                self._workers.submit(pairs_of, path, config.scale, config.downscales, config.patch, partner)
            )

    def _picture(self, index: int) -> Path:
        """The picture at a place of the sequence; each process has every `size`-th of it."""
        epoch, place = divmod(index * self._world.size + self._world.rank, len(self._paths))
        if epoch not in self._orders:
            order = list(self._paths)
            random.Random(f"{self._config.seed} {epoch}").shuffle(order)
            self._orders[epoch] = order
            self._orders.pop(epoch - 2, None)
        return self._orders[epoch][place]

    def _sent(self, pair: Pair) -> tuple[Tensor, Tensor, tuple[int, int]]:
        low, high = (torch.tensor(pixels.reshape(-1, 3), device=self.device) for pixels in (pair.low, pair.high))
        return low, high, (pair.low.shape[0], pair.low.shape[1])
