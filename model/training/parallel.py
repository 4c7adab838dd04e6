"""Training on several GPUs or machines: one process each, as `torchrun` starts them, the same weights in all of them.

Each process takes patches of its own; gradients are averaged after the backward pass, so a step is one of `size` times the batch.
Only the first process measures, logs and saves.
"""

import dataclasses
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flashrib.runtime.errors import UsageError


@dataclasses.dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: number of this one.
        size: how many there are.
        local: number of this one on its machine, which is the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process measures, logs and saves."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The device of this process."""
        return torch.device("cuda", self.local) if device.type == "cuda" and self.size > 1 else device

    def start(self, network: nn.Module) -> None:
        """Give all processes the weights of the first."""
        if self.size > 1:
            for value in (*network.parameters(), *network.buffers()):
                dist.broadcast(value.data, 0)

    def average_gradients(self, network: nn.Module) -> None:
        """Replace the gradients by their means over all processes, in one exchange."""
        if self.size == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        together /= self.size
        start = 0
        for gradient in gradients:
            gradient.copy_(together[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def number(self, seed: int, step: int) -> int:
        """A seed of this process and step, the same after an interruption."""
        return ((seed * 1_000_003 + step) * 4099 + self.rank) % 2**63

    def seed(self, generator: torch.Generator, seed: int, step: int) -> None:
        """Give each process its own patches of a step; a process alone goes on as it is."""
        if self.size > 1:
            generator.manual_seed(self.number(seed, step))

    def agree(self, value: bool, device: torch.device) -> bool:
        """What the first process says."""
        if self.size == 1:
            return value
        told: Tensor = torch.tensor(int(value), device=device)
        dist.broadcast(told, 0)
        return bool(told)

    def end(self) -> None:
        """Leave the other processes."""
        if self.size > 1:
            dist.destroy_process_group()


def started() -> World:
    """The processes that `torchrun` started with this one; this one alone where it did not."""
    names: Sequence[str] = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(name in os.environ for name in names):
        return World()
    world = World(*(int(os.environ[name]) for name in names))
    return world if world.size > 1 else World()


def join(device: torch.device) -> World:
    """Join the processes that `torchrun` started with this one, if there are any.

    Raises:
        UsageError: there are more processes on a machine than GPUs.
    """
    world = started()
    if world.size == 1:
        return world
    if device.type == "cuda":
        if world.local >= torch.cuda.device_count():
            raise UsageError(
                f"process {world.local} of this machine has no GPU, there are {torch.cuda.device_count()}: give torchrun"
                " --nproc-per-node that number"
            )
        torch.cuda.set_device(world.local)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return world
