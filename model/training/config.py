"""Configuration of a training run, read from a small TOML file."""

import dataclasses
import math
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal

from flashrib.model.architectures.registry import presets
from flashrib.model.config import SCALES
from flashrib.model.training.degradations import DEGRADATIONS
from flashrib.runtime import schema
from flashrib.runtime.errors import UsageError

QAT_MODES = ("int8", "fp8")
_HALVED = 8  # an opponent halves pictures three times
_TYPES: dict[Any, str] = {tuple: "list", dict: "table"}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run; every field may stand in the TOML file, `data` must.

    Attributes:
        data: folders of high-resolution pictures, relative to the TOML file; the low-resolution ones are made from them.
        data_low: folders of low-resolution pictures, one for each of `data`, with the same names (or NAMEx2 at scale 2); empty: they are
            made, see `degradation`.
        recursive: pictures in the folders below count too.
        pool: pictures that lie on the device at a time, those of the training; 0: all. The rest is read while the training goes on.
        rotate: steps after which an eighth of the pool is exchanged.
        arch: preset to train.
        scale: magnification.
        downscales: each picture is also used at these sizes (antialiased bicubic), 1.0 being its own.
        degradation: how low-resolution pictures are made: "bicubic", shrunk as MATLAB's imresize does; or, with blur, noise and JPEG drawn
            anew for every patch, "photo" for photographs as people have them, or "sst-real", about twice as strong. Those of the
            validation are made once, in the same way.
        loss: "l1", or "l2", whose minimum is what PSNR measures; not of sst-real.
        adversarial: weight beside `loss` of an opponent that learns to tell what the network makes from real pictures; 0: none. It brings
            texture and costs PSNR; see `flashrib.model.training.adversarial`. `patch` times `scale` must be a multiple of 8 then.
        perceptual: of sst-real, half of its loss: "pyramid", a stand-in that needs no weights; "none"; or "given", what `train` is passed
            from Python. See `flashrib.model.training.consistency`.
        noise_steps: of sst-real, intervals of the grid of noise levels at the beginning and at the end.
        validation: number of pictures held out (every n-th of the sorted list), for the PSNR in the log; 0 only with `validation_sets`.
        validation_sets: name -> folder of high-resolution pictures, relative to the TOML file, each with a column of its own in the log.
        patch: side of the low-resolution patch in pixels; at least the largest window, so that no window is padded.
        batch: patches of a forward pass, of each process where there are several.
        accumulate: forward passes of a step, whose gradients are averaged: batches larger than the memory.
        steps: optimiser steps.
        optimizer: "adam" or "adamw".
        betas: of the optimizer.
        weight_decay: of the optimizer; some parameters of some networks are exempt, see `Network.undecayed`.
        lr: peak learning rate.
        schedule: "cosine" from `lr` to `lr_final`, or "multistep".
        lr_final: learning rate at the end of the cosine.
        milestones: steps at which "multistep" multiplies the learning rate by `gamma`, ascending.
        gamma: see `milestones`.
        warmup: steps of linear warm-up.
        ema: decay of the moving average of the weights, which is what is evaluated and exported.
        ema_warmup: the average forgets faster while it is young, (1 + step) / (10 + step).
        clip: largest norm of the gradient; 0: any.
        precision: "fp32"; "tf32", float32 whose products a GPU computes in TF32; or "bf16" for autocast (residual stream, statistics,
            position codes and loss stay fp32).
        compile: compile the layers with torch.compile, one by one.
        validate_every, save_every: steps between validations and between saves of the resumable state.
        seed: seed of the initialisation and of the patches.
        start: checkpoint to start from, relative to the TOML file; empty: random weights.
        key: where `start` holds several dictionaries, which one is the network, such as "params_ema"; empty: found.
        qat: "int8" or "fp8" for quantization-aware finetuning of `start` (see `flashrib.model.training.qat`); empty: none.
    """

    data: tuple[str, ...]
    data_low: tuple[str, ...] = ()
    recursive: bool = False
    pool: int = 0
    rotate: int = 100
    arch: str = "sst-light"
    scale: int = 2
    downscales: tuple[float, ...] = (1.0,)
    degradation: Literal["bicubic", "photo", "sst-real"] = "bicubic"
    loss: Literal["l1", "l2"] = "l1"
    adversarial: float = 0.0
    perceptual: Literal["pyramid", "none", "given"] = "pyramid"
    noise_steps: tuple[int, ...] = (4, 3)
    validation: int = 8
    validation_sets: dict[str, str] = dataclasses.field(default_factory=dict)
    patch: int = 64
    batch: int = 16
    accumulate: int = 1
    steps: int = 10_000
    optimizer: Literal["adam", "adamw"] = "adam"
    betas: tuple[float, ...] = (0.9, 0.99)
    weight_decay: float = 0.0
    lr: float = 5e-4
    schedule: Literal["cosine", "multistep"] = "cosine"
    lr_final: float = 1e-6
    milestones: tuple[int, ...] = ()
    gamma: float = 0.5
    warmup: int = 500
    ema: float = 0.999
    ema_warmup: bool = True
    clip: float = 1.0
    precision: Literal["fp32", "tf32", "bf16"] = "bf16"
    compile: bool = False
    validate_every: int = 1000
    save_every: int = 1000
    seed: int = 0
    start: str = ""
    key: str = ""
    qat: str = ""

    def __post_init__(self) -> None:
        for name, allowed in _choices().items():
            if getattr(self, name) not in allowed:
                told = ", ".join(str(choice) for choice in allowed if choice != "")
                raise UsageError(f"training configuration: {name} = {getattr(self, name)!r} must be one of {told}")
        checks = {
            "data": bool(self.data),
            "data_low": len(self.data_low) in (0, len(self.data)),
            "pool": self.pool >= 0,
            "rotate": self.rotate >= 1,
            "downscales": bool(self.downscales) and all(0 < d <= 1 for d in self.downscales),
            "adversarial": 0 <= self.adversarial < math.inf,
            "noise_steps": len(self.noise_steps) == 2 and all(1 <= n <= 1000 for n in self.noise_steps),
            "validation": self.validation >= (0 if self.validation_sets else 1),
            "validation_sets": all(self.validation_sets.values()) and "" not in self.validation_sets,
            "patch": self.patch >= 8,
            "batch": self.batch >= 1,
            "accumulate": self.accumulate >= 1,
            "betas": len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "milestones": list(self.milestones) == sorted(set(self.milestones))
            and all(m >= 1 for m in self.milestones),
            "gamma": 0 < self.gamma <= 1,
            "steps": self.steps >= 1,
            "lr": 0 < self.lr_final <= self.lr < math.inf,
            "warmup": 0 <= self.warmup < self.steps,
            "ema": 0 <= self.ema < 1,
            "clip": self.clip >= 0,
            "validate_every": self.validate_every >= 1,
            "save_every": self.save_every >= 1,
            "seed": abs(self.seed) < 2**63,  # what torch takes
        }
        for name, valid in checks.items():
            if not valid:
                raise UsageError(f"training configuration: {name} = {getattr(self, name)!r} is out of range")
        if self.data_low and (self.degradation != "bicubic" or self.downscales != (1.0,)):
            raise UsageError("data_low gives the low-resolution pictures: leave degradation and downscales out")
        if self.key and not self.start:
            raise UsageError(
                f"key = {self.key!r} says where in a checkpoint the network is: name the file with start or --start"
            )
        if self.qat and not self.start:
            raise UsageError(
                f"qat = {self.qat!r} finetunes a trained network: name its checkpoint with start = 'FILE' or --start FILE"
            )
        if self.adversarial and (self.qat or self.accumulate > 1):
            raise UsageError("adversarial does not go with qat or accumulate: leave one of them out")
        if self.adversarial and (side := self.patch * self.scale) % _HALVED:
            raise UsageError(
                f"adversarial wants patch * scale to be a multiple of {_HALVED}, {side} is none: change patch"
            )
        if self.qat and self.compile:
            raise UsageError("compile = true does not go with quantization-aware finetuning: leave it out")


def _choices() -> dict[str, tuple[object, ...]]:
    """The fields that are one of a few values, and these."""
    hints = typing.get_type_hints(TrainConfig)
    literals = {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is Literal}
    return literals | {
        "arch": tuple(presets("upscale")),
        "scale": tuple(SCALES),
        "degradation": ("bicubic", *DEGRADATIONS),
        "qat": ("", *QAT_MODES),
    }


# What lists hold.
_LISTS = {
    "data": schema.several(schema.text()),
    "data_low": schema.several(schema.text()),
    "downscales": schema.several(schema.number(0, 1e6)),
    "betas": schema.several(schema.number(0, 1)),
    "milestones": schema.several(schema.whole(1, 10**9)),
    "noise_steps": schema.several(schema.whole(1, 1000)),
}


def read_config(path: Path) -> TrainConfig:
    """Read a TOML file; folders in `data` are taken relative to it.

    Raises:
        UsageError: the file cannot be read, is not TOML, or holds unknown, missing, mistyped or out-of-range fields.
    """
    try:
        values = tomllib.loads(schema.read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as a TOML training configuration: {error}") from error
    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    if unknown := sorted(set(values) - set(fields)):
        raise UsageError(f"{path}: unknown field(s) {', '.join(unknown)}; known are {', '.join(fields)}")
    if "data" not in values:
        raise UsageError(
            f"{path}: the field data is missing: give the folders of high-resolution pictures, data = ['DIR']"
        )
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
        wanted = {"data": tuple, "validation_sets": dict}.get(name, type(fields[name].default))
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            values[name] = float(value)
        if type(values[name]) is not wanted:
            raise UsageError(f"{path}: {name} = {value!r} must be of type {_TYPES.get(wanted, wanted.__name__)}")
        if name in _LISTS and not _LISTS[name].holds(value):
            raise UsageError(f"{path}: {name} = {schema.shown(value)} must be {_LISTS[name].words}")
        if wanted is str and "\0" in values[name]:
            raise UsageError(f"{path}: {name} = {value!r} holds a character that no name has")
    for name in ("data", "data_low"):
        values[name] = tuple(str(path.parent / folder) for folder in values.get(name, ()))
    sets = values.get("validation_sets", {})
    folder_rule = schema.text()
    if wrong := [name for name, folder in sets.items() if not folder_rule.holds(folder) or not folder_rule.holds(name)]:
        raise UsageError(f"{path}: validation_sets.{wrong[0]} = {sets[wrong[0]]!r} must be a folder")
    values["validation_sets"] = {name: str(path.parent / folder) for name, folder in sets.items()}
    if values.get("start"):
        values["start"] = str(path.parent / values["start"])
    return TrainConfig(**values)
