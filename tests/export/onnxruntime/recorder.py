"""What PyTorch would launch, without launching it."""

from collections.abc import Callable
from typing import Any

import torch

from flashrib.export.onnxruntime.launch import Launch
from flashrib.export.onnxruntime.sizes import Size

Launched = tuple[str, dict[str, Any], tuple[int, ...]]
"""Name of the kernel, its integers and constants by name, and the grid."""


class Recorder:
    """In the place of a kernel: writes launches to a list."""

    def __init__(self, kernel: Any, seen: list[Launched]) -> None:
        self._kernel, self._seen = kernel, seen

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def record(*arguments: Any, **named: Any) -> None:
            names = self._kernel.arg_names
            values = dict(zip(names, arguments, strict=False)) | named
            known = {name: values[name] for name in names if not isinstance(values.get(name), torch.Tensor | None)}
            self._seen.append((self._kernel.__name__, known, tuple(grid)))

        return record


def launched_by_library(launch: Launch, shapes: list[tuple[int, ...]]) -> Launched:
    """The same of a launch of the library, for inputs of these shapes."""
    integers = {name: Size.of(value).evaluate(shapes) for name, value in launch.integers.items()}
    constants = {name: value for name, value in launch.constants.items() if value is not None}
    names = launch.kernel.arg_names
    known = {name: value for name, value in (integers | constants).items() if name in names}
    return launch.kernel.__name__, known, tuple(Size.of(side).evaluate(shapes) for side in launch.grid)
