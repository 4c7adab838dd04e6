"""What a training run continues from, and the files that it writes."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flashrib.model.checkpoint import save_safetensors
from flashrib.model.network import Network
from flashrib.model.state_dict import check_archive
from flashrib.model.training.adversarial import Opponent
from flashrib.runtime import schema
from flashrib.runtime.artifacts.files import replacing
from flashrib.runtime.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

STATE = "state.pth"
WEIGHTS = "weights.safetensors"
LOCK = ".training.lock"

# Of the state: the weights themselves are checked by the network that takes them.
STATE_SCHEMA = {
    "params": schema.OBJECT,
    "params_ema": schema.OBJECT,
    "optimizer": schema.OBJECT,
    "opponent": schema.OBJECT,
    "generator": schema.Rule(
        "a tensor of bytes", lambda value: isinstance(value, Tensor) and value.dtype == torch.uint8
    ),
    "step": schema.whole(0, 10**9),
    "config": schema.text(most=100_000),
}

# Fields of the configuration that may differ when a run is continued.
_FREE = ("data", "data_low", "compile", "start")


@dataclasses.dataclass
class TrainingState:
    """Everything that the next step depends on."""

    network: Network
    ema: list[Tensor]
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    step: int = 0
    opponent: Opponent | None = None

    def save(self, folder: Path, config: "DataclassInstance") -> None:
        """Write the averaged weights, then the state to continue from, each atomically.

        Args:
            folder: gets both.
            config: what a run that continues this one must have in common with it.
        """
        averaged = dict(zip(self.parameter_names(), self.ema, strict=True))
        state = {
            "params": self.network.state_dict(),
            "params_ema": averaged,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "config": json.dumps(dataclasses.asdict(config)),
        }
        if self.opponent:
            state["opponent"] = self.opponent.state_dict()
        with self.averaged():
            save_safetensors(folder / WEIGHTS, self.network, {"flashrib.steps": str(self.step)})
        with replacing(folder / STATE) as temporary:
            torch.save(state, temporary)

    def load(self, folder: Path, config: "DataclassInstance") -> None:
        """Continue from `save`.

        Raises:
            UsageError: the state belongs to another configuration.
            CheckpointError: the file is damaged.
        """
        try:
            check_archive(folder / STATE)
            state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
            schema.check(state, STATE_SCHEMA)
            before, wanted = _defaults(config) | schema.parse_json(state["config"]), _json(config)
            if changed := [k for k in wanted if k not in _FREE and _differ(k, before[k], wanted[k])]:
                raise UsageError(
                    f"{folder}: holds a run with another {', '.join(changed)}; choose another folder or fix the configuration"
                )
            self.network.load_state_dict(state["params"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
            for target, name in zip(self.ema, self.parameter_names(), strict=True):
                target.copy_(state["params_ema"][name])
            if self.opponent:
                self.opponent.load_state_dict(state["opponent"])
            self.step = state["step"]
        except UsageError:
            raise
        except Exception as error:  # bytes of unknown origin: torch and the optimizer raise whatever they stumble over
            raise CheckpointError(
                f"{folder / STATE}: damaged, the run cannot be continued ({type(error).__name__}): delete it to start again"
            ) from error

    def average(self, decay: float) -> None:
        """Move the averaged weights towards the present ones."""
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, list(self.network.parameters()), 1 - decay)

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


def _json(config: "DataclassInstance") -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def _differ(name: str, before: Any, wanted: Any) -> bool:
    """Whether a field has changed; of validation sets only the names count, which are columns of the log."""
    return sorted(before) != sorted(wanted) if name == "validation_sets" else bool(before != wanted)


def _defaults(config: "DataclassInstance") -> dict[str, Any]:
    """What a state says that is older than a field of the configuration."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            values[field.name] = field.default
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
