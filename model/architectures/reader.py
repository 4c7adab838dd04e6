"""Reading sizes out of the keys and shapes of a checkpoint, with an error for whatever does not fit."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flashrib.model.state_dict import first_ten
from flashrib.runtime.errors import CheckpointError

Layout = dict[str, Any]

_LARGEST_SIZE = 4096  # one absurd shape must not make `check_keys` build a network of terabytes


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads sizes out of a state dict.

    Attributes:
        state_dict: key -> tensor; only the shapes are looked at.
        source: name of the file, for messages.
        title: name of the architecture with its article, for messages: "an SST".
        largest: largest size of an axis that is believed.
    """

    state_dict: Mapping[str, Tensor]
    source: str | Path
    title: str
    largest: int = _LARGEST_SIZE

    @property
    def name(self) -> str:
        return self.title.partition(" ")[2]

    def shape(self, key: str, dims: int) -> tuple[int, ...]:
        """Shape of a tensor that must be there with `dims` axes."""
        if key not in self.state_dict:
            raise self.missing([key])
        shape = tuple(self.state_dict[key].shape)
        if len(shape) != dims or not all(1 <= size <= self.largest for size in shape):
            raise CheckpointError(f"{self.source}: {key!r} has the shape {shape}, which no {self.name} network has")
        return shape

    def count(self, template: str) -> int:
        """Number of the indices that stand for "{}" in `template`; they must be 0, 1, 2, ..."""
        pattern = re.escape(template).replace(re.escape("{}"), "([0-9]{1,4})")
        indices = {int(match[1]) for key in self.state_dict if (match := re.fullmatch(pattern, key))}
        missing = [template.format(i) for i in range(max(indices, default=-1)) if i not in indices]
        if missing:
            raise self.missing(missing)
        return len(indices)

    def missing(self, keys: list[str]) -> CheckpointError:
        return CheckpointError(
            f"{self.source}: missing keys of {self.title} network: {first_ten([repr(key) for key in keys])}"
        )

    def refuse(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.source}: no {self.name} network has {what}")

    def check_keys(self, wanted: Mapping[str, Tensor]) -> None:
        """Compare all keys and shapes with those of a network's state dict.

        Raises:
            CheckpointError: missing, unexpected or misshapen keys.
        """
        shapes = {key: tuple(value.shape) for key, value in wanted.items()}
        seen = {key: tuple(value.shape) for key, value in self.state_dict.items()}
        wrong = [key for key in shapes if key in seen and seen[key] != shapes[key]]
        problems = [
            ("missing", [repr(key) for key in shapes if key not in seen]),
            ("unexpected", [repr(key) for key in seen if key not in shapes]),
            ("misshapen", [f"{key!r} {seen[key]} instead of {shapes[key]}" for key in wrong]),
        ]
        if any(keys for _, keys in problems):
            about = "; ".join(f"{len(keys)} {problem}: {first_ten(keys)}" for problem, keys in problems if keys)
            raise CheckpointError(f"{self.source}: not the keys and shapes of {self.title} network: {about}")

    def rib_and_gate(self, attention: str) -> Layout:
        """Values of the bias MLP and of the gate below the prefix `attention`."""
        features, hidden = self.shape(f"{attention}.to_hidden", 2)
        if features % 4 != 2:
            raise self.refuse(f"{features} coordinate features ({attention}.to_hidden), which must be 2 + 4 L")
        gate = next(
            (kind for i, kind in ((1, "DWC"), (0, "Linear")) if f"{attention}.gate.{i}.weight" in self.state_dict), None
        )
        return {"rib_hidden": hidden, "rib_freqs": (features - 2) // 4, "gate": gate}

    def heads_and_rank(self, attention: str, dim: int) -> tuple[int, int]:
        heads, _, rank = self.shape(f"{attention}.to_q", 3)
        if dim % heads:
            raise self.refuse(f"{heads} heads ({attention}.to_q) for {dim} channels")
        return heads, rank
