"""The training loop: L1, Adam, cosine, EMA; resumable at any step with the same result as without the interruption."""

import contextlib
import csv
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from flashrib.model.architectures.registry import build_model
from flashrib.model.checkpoint import load_model, save_safetensors
from flashrib.model.network import Upscaler
from flashrib.model.state_dict import check_archive
from flashrib.model.training.config import TrainConfig
from flashrib.model.training.data import Pair, PatchSampler, load_pairs, pictures_of, split
from flashrib.model.training.qat import QuantizationAware
from flashrib.runtime import schema
from flashrib.runtime.artifacts.files import replacing
from flashrib.runtime.errors import CheckpointError, FlashribError, UsageError
from flashrib.runtime.quality.metrics import psnr

STATE = "state.pth"
WEIGHTS = "weights.safetensors"

# Of the state: the weights themselves are checked by the network that takes them.
STATE_SCHEMA = {
    "params": schema.OBJECT,
    "params_ema": schema.OBJECT,
    "optimizer": schema.OBJECT,
    "generator": schema.Rule(
        "a tensor of bytes", lambda value: isinstance(value, Tensor) and value.dtype == torch.uint8
    ),
    "step": schema.whole(0, 10**9),
    "config": schema.text(most=100_000),
}


@dataclasses.dataclass
class TrainingState:
    """Everything that the next step depends on."""

    network: Upscaler
    ema: list[Tensor]
    optimizer: torch.optim.Adam
    generator: torch.Generator
    step: int = 0

    def save(self, folder: Path, config: TrainConfig) -> None:
        """Write the resumable state and the averaged weights, each atomically."""
        averaged = dict(zip(self.parameter_names(), self.ema, strict=True))
        state = {
            "params": self.network.state_dict(),
            "params_ema": averaged,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "config": json.dumps(dataclasses.asdict(config)),
        }
        with replacing(folder / STATE) as temporary:
            torch.save(state, temporary)
        with self.averaged():
            save_safetensors(folder / WEIGHTS, self.network, {"flashrib.steps": str(self.step)})

    def load(self, folder: Path, config: TrainConfig) -> None:
        """Continue from `save`.

        Raises:
            UsageError: the state belongs to another configuration.
            CheckpointError: the file is damaged.
        """
        try:
            check_archive(folder / STATE)
            state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
            schema.check(state, STATE_SCHEMA)
            before = schema.parse_json(state["config"])
            wanted = json.loads(json.dumps(dataclasses.asdict(config)))
            younger = {"start": "", "qat": ""}  # fields that states of older versions lack
            before = younger | before
            if changed := [k for k in wanted if before.get(k) != wanted[k] and k not in ("data", "compile", "start")]:
                raise UsageError(
                    f"{folder}: holds a run with another {', '.join(changed)}; choose another folder or mend the configuration"
                )
            self.network.load_state_dict(state["params"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
            for target, name in zip(self.ema, self.parameter_names(), strict=True):
                target.copy_(state["params_ema"][name])
            self.step = state["step"]
        except UsageError:
            raise
        except Exception as error:  # bytes of unknown origin: torch and the optimizer raise whatever they stumble over
            raise CheckpointError(
                f"{folder / STATE}: damaged, the run cannot be continued ({type(error).__name__}): delete it to start anew"
            ) from error

    def parameter_names(self) -> list[str]:
        return [name for name, _ in self.network.named_parameters()]

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the context the network has the averaged weights."""
        parameters: list[Tensor] = list(self.network.parameters())
        kept = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            torch._foreach_copy_(parameters, self.ema)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(parameters, kept)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a half cosine from `lr` to `lr_final`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr_final + (config.lr - config.lr_final) * (1 + math.cos(math.pi * progress)) / 2


def validate(network: Upscaler, pairs: list[Pair], device: torch.device) -> float:
    """Mean Y-PSNR in dB over whole pictures, border = scale."""
    network.eval()
    results = []
    with torch.inference_mode():
        for pair in pairs:
            low = torch.tensor(pair.low, device=device).permute(2, 0, 1)[None].float() / 255
            high = (network.upscale(low)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).to(torch.uint8).cpu().numpy()
            results.append(psnr(high, pair.high, border=network.config.scale))
    network.train()
    return float(np.mean(results))


def _prepare(config: TrainConfig, device: torch.device) -> TrainingState:
    torch.manual_seed(config.seed)
    network = (
        load_model(config.start, config.arch, config.scale) if config.start else build_model(config.arch, config.scale)
    )
    if not isinstance(network, Upscaler):
        raise UsageError(f"{config.arch}: only super-resolution networks can be trained")
    network = network.train().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
    ema = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, betas=(0.9, 0.99), fused=device.type == "cuda")
    generator = torch.Generator(device).manual_seed(config.seed)
    return TrainingState(network, ema, optimizer, generator)


def train(
    config: TrainConfig,
    folder: Path,
    *,
    device: str = "auto",
    minutes: float = math.inf,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> Path:
    """Train, or continue the run that lies in `folder`; return the path of the averaged weights.

    Args:
        config: what to train, on what.
        folder: gets `state.pth` (resumable), `weights.safetensors` (averaged) and `log.csv`.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        minutes: stop after about this time, saved and resumable.
        progress: show a bar with the time left.
        on_log: called with every row of the log.

    Raises:
        UsageError: the configuration does not fit the pictures, or the folder's run has another one.
        CheckpointError: the checkpoint to start from is damaged or of another network.
        FlashribError: the loss is no longer finite, or something cannot be written.
    """
    started = time.monotonic()
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no CUDA GPU here; use --device cpu")
    folder.mkdir(parents=True, exist_ok=True)
    state = _prepare(config, where)
    if (folder / STATE).exists():
        state.load(folder, config)
    training, held_out = split(pictures_of(config.data), config.validation)
    sampler = PatchSampler(load_pairs(training, config.scale, config.downscales, config.patch), config, where)
    validation = load_pairs(held_out, config.scale)

    network = state.network
    parameters: list[Tensor] = list(network.parameters())
    quantized = QuantizationAware(network, config.qat) if config.qat else None
    forward: Callable[[Tensor], Tensor] = quantized or (torch.compile(network) if config.compile else network)
    autocast = torch.autocast(where.type, torch.bfloat16, enabled=config.precision == "bf16")
    total_loss = torch.zeros((), device=where)
    counted = 0
    bar = tqdm(total=config.steps, initial=state.step, unit="step", disable=None if progress else True)
    with bar, (folder / "log.csv").open("a", newline="") as log_file:
        log = csv.writer(log_file)
        while state.step < config.steps:
            low, high = sampler.sample(config.batch, state.generator)
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(state.step, config)
            with autocast:
                output = forward(low.to(memory_format=torch.channels_last))
            loss = F.l1_loss(output.float(), high)
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
            torch.nn.utils.clip_grad_norm_(parameters, config.clip)
            state.optimizer.step()
            decay = min(config.ema, (1 + state.step) / (10 + state.step))  # young averages forget faster
            with torch.no_grad():
                torch._foreach_lerp_(state.ema, parameters, 1 - decay)
            total_loss += loss.detach()
            state.step += 1
            counted += 1
            bar.update()
            out_of_time = time.monotonic() - started > minutes * 60
            if state.step % config.validate_every == 0 or state.step == config.steps:
                with state.averaged(), quantized.rounded() if quantized else contextlib.nullcontext():
                    quality = validate(network, validation, where)
                mean_loss = float(total_loss) / counted
                if not math.isfinite(mean_loss):
                    raise FlashribError(f"the loss is {mean_loss} at step {state.step}: lower lr = {config.lr}")
                row = {"step": state.step, "loss": mean_loss, "psnr_y": quality, "seconds": time.monotonic() - started}
                log.writerow([f"{value:.6g}" for value in row.values()])
                log_file.flush()
                bar.set_postfix(loss=f"{mean_loss:.5f}", psnr_y=f"{quality:.3f}")
                if on_log:
                    on_log(row)
                total_loss.zero_()
                counted = 0
            if state.step % config.save_every == 0 or state.step == config.steps or out_of_time:
                state.save(folder, config)
            if out_of_time:
                break
    return folder / WEIGHTS
