"""What sessions of ONNX Runtime read from a loaded graph: its input and output."""

import dataclasses
import os
from typing import Any

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import ModelError

MOST_PICTURES = 1024
"""Pictures of a run that a file may ask for."""

_INPUT_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


def described_by_graph(
    path: str | os.PathLike[str], session: Any, described: ModelInfo
) -> tuple[int | None, str, ModelInfo]:
    """Return the pictures of a run (None: any number), the input's dtype, and `described` with what only the graph can tell.

    Raises:
        ModelError: input or output are not as promised.
    """
    batch, height, width = _check_ends(path, session, described.noise > 0)
    dtype = _INPUT_DTYPES[session.get_inputs()[0].type]
    info = dataclasses.replace(
        described,
        fixed_size=(height, width) if isinstance(height, int) else None,
        io="fp16" if dtype == "float16" else "fp32",
    )
    return batch if isinstance(batch, int) else None, dtype, info


def _check_ends(path: str | os.PathLike[str], session: Any, noise: bool) -> tuple[int | str, Any, Any]:
    """Return the input's B, H and W, numbers or names, or raise ModelError where they are not as promised."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = [end.name for end in inputs], [end.name for end in outputs]
    wanted = ["input", "noise"] if noise else ["input"]
    if names != (wanted, ["output"]):
        raise ModelError(
            f"{path}: the model maps {names[0]} to {names[1]}, but it must have the {'inputs' if noise else 'one input'}"
            f" {' and '.join(map(repr, wanted))} and the one output 'output': export it again"
        )
    if inputs[0].type not in _INPUT_DTYPES or outputs[0].type not in _INPUT_DTYPES:
        raise ModelError(
            f"{path}: the model maps {inputs[0].type} to {outputs[0].type}, but both must be float32 or float16: export"
            " it with --precision fp32 or fp16"
        )
    shape = inputs[0].shape
    if len(shape) != 4 or shape[1] != 3:
        raise ModelError(f"{path}: the input is {shape}, but it must be (B, 3, H, W)")
    if isinstance(shape[0], int) and not 1 <= shape[0] <= MOST_PICTURES:
        raise ModelError(f"{path}: takes {shape[0]} pictures at a time, but it must take 1 to {MOST_PICTURES}")
    if isinstance(shape[2], int) != isinstance(shape[3], int):
        raise ModelError(f"{path}: the input is {shape}, but its height and width must be both static or both dynamic")
    return shape[0], shape[2], shape[3]
