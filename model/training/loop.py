"""The training loop: an objective, EMA; resumable at any step with the same result as without the interruption."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flashrib.model.architectures.registry import build_model
from flashrib.model.checkpoint import load_model
from flashrib.model.training.adversarial import Opponent
from flashrib.model.training.config import TrainConfig
from flashrib.model.training.consistency import Loss
from flashrib.model.training.data import Pair, PatchSampler, load_pairs, pictures_of, split
from flashrib.model.training.degraded import degradation_of, degrade_pairs
from flashrib.model.training.log import add_row
from flashrib.model.training.objectives import Objective, objective_for
from flashrib.model.training.optimizer import ema_decay, learning_rate, make_optimizer
from flashrib.model.training.pairing import find_partners
from flashrib.model.training.parallel import World, join
from flashrib.model.training.qat import QuantizationAware
from flashrib.model.training.state import LOCK, STATE, WEIGHTS, TrainingState
from flashrib.model.training.steps import GraphedStep, compile_layers
from flashrib.model.training.stream import StreamSampler
from flashrib.model.training.validation import load_sets, measure
from flashrib.runtime.artifacts.lock import locked
from flashrib.runtime.errors import FlashribError, UsageError


def _prepare(config: TrainConfig, device: torch.device) -> TrainingState:
    torch.manual_seed(config.seed)
    if config.start:
        network = load_model(config.start, config.arch, config.scale, key=config.key or None)
    else:
        network = build_model(config.arch, config.scale)
    network = network.train().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
    ema = [p.detach().clone() for p in network.parameters()]
    optimizer = make_optimizer(network, config, device)
    generator = torch.Generator(device).manual_seed(config.seed)
    opponent = Opponent(config, device) if config.adversarial else None
    return TrainingState(network, ema, optimizer, generator, opponent=opponent)


@dataclasses.dataclass
class _Run:
    """What stays the same from step to step."""

    config: TrainConfig
    device: torch.device
    state: TrainingState
    sampler: PatchSampler
    held_out: list[Pair]
    sets: dict[str, list[Pair]]
    quantized: QuantizationAware | None
    objective: Objective
    world: World
    graphed: GraphedStep | None = None

    def step(self) -> Tensor:
        """One step of the optimizer; returns the loss, on the device."""
        config, state = self.config, self.state
        rate = learning_rate(state.step, config)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad(set_to_none=True)
        self.world.seed(state.generator, config.seed, state.step)
        self.sampler.turn(state.step)
        total = torch.zeros((), device=self.device)
        for part in range(config.accumulate):
            total += self.gradients(part) / config.accumulate
        self.world.average_gradients(state.network)
        if config.clip:
            torch.nn.utils.clip_grad_norm_(list(state.network.parameters()), config.clip)
        state.optimizer.step()
        self.objective.after(rate, self.world)
        state.average(ema_decay(state.step, config))
        state.step += 1
        return total

    def gradients(self, part: int) -> Tensor:
        """Add the gradients of a batch, a part of the step, to those of the parameters; returns its loss."""
        low, high = self.sampler.sample(self.config.batch, self.state.generator)
        seed = self.world.number(self.config.seed, self.state.step) * self.config.accumulate + part
        inputs = self.objective.batch(low, high, seed % 2**63, self.state.step)
        if self.device.type == "cuda" and self.config.accumulate == 1 and self.quantized is None:
            if self.graphed is None:
                self.graphed = GraphedStep(self.state.network, self.objective.loss, inputs)
            torch.manual_seed(seed % 2**63)  # of dropout, after a recording that drew some
            return self.graphed(*inputs).detach()
        torch.manual_seed(seed % 2**63)
        loss = self.objective.loss(*inputs)
        (loss / self.config.accumulate).backward()  # type: ignore[no-untyped-call]  # untyped in torch
        return loss.detach()

    def close(self) -> None:
        """Leave the other processes, and end those that read."""
        self.sampler.close()
        self.world.end()

    def measure(self) -> dict[str, float]:
        """PSNR of the averaged weights."""
        with self.state.averaged(), self.quantized.rounded() if self.quantized else contextlib.nullcontext():
            return measure(self.state.network, self.held_out, self.sets, self.device)


def _start(config: TrainConfig, folder: Path, device: str, perceptual: Loss | None) -> _Run:
    """Everything up to the first step."""
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no CUDA GPU here; use --device cpu")
    world = join(where)
    where = world.device(where)
    if config.precision == "tf32":
        backends: Any = torch.backends  # its types lack these
        backends.cuda.matmul.fp32_precision = backends.cudnn.conv.fp32_precision = "tf32"
    folder.mkdir(parents=True, exist_ok=True)
    state = _prepare(config, where)
    if (folder / STATE).exists():
        state.load(folder, config)
    world.start(state.network)
    if state.opponent:
        world.start(state.opponent.network)
    paths = pictures_of(config.data, config.recursive)
    partners = find_partners(config.data, config.data_low, config.scale, config.recursive) if config.data_low else {}
    training, held_out = split(paths, config.validation)
    network = state.network
    quantized = QuantizationAware(network, config.qat) if config.qat else None
    if config.compile:
        compile_layers(network)
    forward: Callable[[Tensor], Tensor] = quantized or network
    degradation = degradation_of(config)
    objective = objective_for(network, forward, config, where, degradation, perceptual, state.opponent)
    validation = load_pairs(held_out, config.scale, partners=partners) if held_out else []
    sets = load_sets(config)
    if degradation is not None:
        validation = degrade_pairs(degradation, validation, where)
        sets = {name: degrade_pairs(degradation, pairs, where) for name, pairs in sets.items()}
    sampler: PatchSampler
    if config.pool and config.pool < len(training):
        sampler = StreamSampler(training, partners, config, world, where)
    else:
        loaded = load_pairs(training, config.scale, config.downscales, config.patch, partners)
        sampler = PatchSampler(loaded, config, where)
    return _Run(config, where, state, sampler, validation, sets, quantized, objective, world)


def _alone(world: World, folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep another training out of the folder; the processes of one training share it."""
    return locked(folder / LOCK, str(folder)) if world.first else contextlib.nullcontext()


def train(
    config: TrainConfig,
    folder: Path,
    *,
    device: str = "auto",
    minutes: float = math.inf,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
    perceptual: Loss | None = None,
) -> Path:
    """Train, or continue the run that lies in `folder`; return the path of the averaged weights.

    Args:
        config: what to train, on what.
        folder: gets `state.pth` (resumable), `weights.safetensors` (averaged), `log.csv` and its curves, `curves.png`.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        minutes: stop after about this time, saved and resumable.
        progress: show a bar with the time left.
        on_log: called with every row of the log.
        perceptual: the loss of two pictures (B, 3, H, W) in -1..1 that `perceptual = "given"` means, such as LPIPS; a CUDA graph
            records it.

    Raises:
        UsageError: the configuration does not fit the pictures, or the folder's run has another one.
        CheckpointError: the checkpoint to start from is damaged or of another network.
        FlashribError: the loss is no longer finite, another training writes into the folder, or something cannot be written.
    """
    started = time.monotonic()
    run = _start(config, folder, device, perceptual)
    state = run.state
    total_loss, counted = torch.zeros((), device=run.device), 0
    quiet = None if progress and run.world.first else True
    with (
        tqdm(total=config.steps, initial=state.step, unit="step", disable=quiet) as bar,
        contextlib.closing(run),
        _alone(run.world, folder),
    ):
        while state.step < config.steps:
            total_loss += run.step()
            counted += 1
            bar.update()
            out_of_time = time.monotonic() - started > minutes * 60
            if minutes < math.inf:
                out_of_time = run.world.agree(out_of_time, run.device)
            last = state.step == config.steps
            if run.world.first and (last or state.step % config.validate_every == 0):
                mean_loss = float(total_loss) / counted
                if not math.isfinite(mean_loss):
                    raise FlashribError(f"the loss is {mean_loss} at step {state.step}: lower lr = {config.lr}")
                quality = run.measure()
                row = {"step": state.step, "loss": mean_loss, "psnr_y": quality.pop("psnr_y")}
                row |= {"seconds": time.monotonic() - started} | quality
                add_row(folder, row)
                bar.set_postfix(loss=f"{mean_loss:.5f}", psnr_y=f"{row['psnr_y']:.3f}")
                if on_log:
                    on_log(row)
                total_loss.zero_()
                counted = 0
            if run.world.first and (last or out_of_time or state.step % config.save_every == 0):
                state.save(folder, config)
            if out_of_time:
                break
    return folder / WEIGHTS
