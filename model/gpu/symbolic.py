"""The operators of the GPU network as single nodes of an ONNX graph, while a network is exported.

A node `flashrib::gpu_chain` has the tensors of the operator `chain` as inputs, missing ones as empty names, and numbers as attributes, but
for those that depend on the size of the picture. `flashrib.export.onnxruntime` gives it its kernel and its body.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Values = dict[str, Any]
Outputs = list[tuple[tuple[Any, ...], torch.dtype]]


def onnx_node(outputs: Callable[[Values], Outputs]) -> Callable[[Any], Any]:
    """Decorate an operator of PyTorch: in an export to ONNX it leaves one node of its name in the graph.

    Args:
        outputs: takes its arguments by name; returns shape and dtype of each output.
    """

    def decorate(operator: Any) -> Any:
        schema = operator._opoverload._schema
        parameters = [argument.name for argument in schema.arguments]
        several = str(schema.returns[0].type).startswith("List")

        @functools.wraps(operator)
        def call(*arguments: Any, **named: Any) -> Any:
            if not torch.onnx.is_in_onnx_export():
                return operator(*arguments, **named)
            values = dict(zip(parameters, arguments, strict=False)) | named
            made = leave_node(schema.name, values, outputs(values))
            return made if several else made[0]

        return call

    return decorate


def leave_node(name: str, values: Values, outputs: Outputs) -> list[Tensor]:
    """Leave a node in the graph that is traced, and return its outputs.

    Args:
        name: "flashrib::gpu_chain".
        values: its arguments by name.
        outputs: shape and dtype of each output.
    """
    import torch.onnx.ops

    inputs = [value for value in values.values() if value is None or isinstance(value, Tensor)]
    numbers = {key: value for key, value in values.items() if isinstance(value, (int, tuple, list))}  # bool is an int
    made = torch.onnx.ops.symbolic_multi_out(
        name,
        inputs,
        attrs={key: int(value) if isinstance(value, int) else list(value) for key, value in numbers.items()},
        dtypes=[dtype for _, dtype in outputs],
        shapes=[shape for shape, _ in outputs],
        version=1,
    )
    return list(made)


def as_source(values: Values) -> Outputs:
    """The outputs of an operator that gives one map like its source."""
    return [(values["source"].shape, values["source"].dtype)]


def as_wanted(values: Values) -> Outputs:
    """The outputs of `chain` and `wide`: those of x, x + start and n that are wanted, and y."""
    source, width = values["source"], -(-values["dim"] // 8) * 8
    maps = int(values["keep_x"]) + int(values["keep_n"]) + (values.get("start") is not None)
    widths = [width] * maps + [values["out_width"]] * (values["next_weight"] is not None)
    return [((*source.shape[:3], width), source.dtype) for width in widths]


def as_forked(values: Values) -> Outputs:
    """The outputs of `fork`; the number of sums depends on the kernel."""
    source, residual, bias, side = (values[name] for name in ("source", "residual", "bias", "side"))
    return [
        (residual.shape, source.dtype),
        ((*source.shape[:3], -(-side // 8) * 8), source.dtype),
        ((source.shape[0], 1, side), bias.dtype),
    ]


def as_taps(values: Values) -> Outputs:
    """The output of `taps`."""
    sums, rows = values["sums"], values["expand_weight"].shape[0]
    return [((sums.shape[0], 9, rows // 9), sums.dtype)]


def as_shuffled(values: Values) -> Outputs:
    """The output of `shuffle`."""
    picture, scale = values["picture"], values["scale"]
    batch, channels, height, width = picture.shape
    return [((batch, channels, scale * height, scale * width), picture.dtype)]
