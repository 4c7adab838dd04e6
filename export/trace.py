"""Deployment form -> ONNX graph in float32, through torch's exporter."""

import functools
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn

from flashrib.model.config import Input
from flashrib.model.deploy import Deployed

_exporting = threading.Lock()


class _Clamped(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor, *more: Tensor) -> Tensor:
        y: Tensor = self.network(picture, *more)
        return y.clamp(0.0, 1.0)


def trace(
    network: Deployed,
    *,
    opset: int,
    batch: int = 1,
    tile: tuple[int, int] | None = None,
    clamp: bool = False,
    minimum: int = 2,
) -> ModelProto:
    """Return the graph of `network`; its nodes of the domain `flashrib` have no bodies yet.

    Args:
        network: what `flashrib.model.fold.fold` or `flashrib.model.gpu.gpu_network` returns.
        opset: ONNX opset, 18 or higher.
        batch: pictures of a run, static.
        tile: (H, W) in input pixels; None leaves both dynamic.
        clamp: bound the output to 0..1.
        minimum: least length of an axis that is left open; what is known to be there, such as the first three rows, needs no arithmetic.
    """
    inputs = network.config.inputs()
    chosen = {"batch": batch} | (network.config.open_sizes(*tile) if tile else {})
    examples = tuple(torch.zeros(i.sizes(**chosen), dtype=getattr(torch, i.dtype)) for i in inputs)
    least = {axis: max(2, minimum, length) for axis, length in network.config.open_sizes(1, 1).items()}
    dynamic = tuple(_dynamic(i, chosen, least) for i in inputs)
    if not any(dynamic):
        dynamic = ()
    shapes = (dynamic[0], dynamic[1:]) if clamp and len(dynamic) > 1 else dynamic
    export = functools.partial(
        torch.onnx.export,
        _Clamped(network).eval() if clamp else network,
        examples,
        dynamo=True,
        opset_version=opset,
        input_names=[i.name for i in inputs],
        output_names=["output"],
        dynamic_shapes=shapes or None,
        verbose=False,
    )
    with _quiet():
        try:
            with _traced_once():
                program = export()
        except torch.onnx.OnnxExporterError:
            program = export()
    assert program is not None
    model = program.model_proto
    for value in [*model.graph.node, *model.graph.value_info, model.graph]:
        value.ClearField("doc_string")
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces of the machine that exported
    del model.metadata_props[:]
    return model


def _dynamic(tensor: Input, chosen: Mapping[str, int], least: Mapping[str, int]) -> dict[int, Any]:
    """The axes of an input that the graph leaves open."""
    return {
        index: torch.export.Dim(axis, min=least[axis])
        for index, axis in enumerate(tensor.shape)
        if isinstance(axis, str) and axis not in chosen
    }


@contextmanager
def _traced_once() -> Iterator[None]:
    """Spare the exporter its second trace, half of the time of an export.

    It is a trace of the trace, which decomposes operators that ONNX does not have and takes out what changes tensors in place. Where there
    is nothing of either kind it gives the same graph; without it an operator that ONNX does not have is an error.
    """
    program_class: Any = torch.export.ExportedProgram

    def at_need(program: torch.export.ExportedProgram, table: Any = None) -> torch.export.ExportedProgram:
        schemas = [getattr(node.target, "_schema", None) for node in program.graph.nodes]
        if any(schema is not None and schema.is_mutable for schema in schemas):
            decomposed: torch.export.ExportedProgram = decompose(program, table)
            return decomposed
        _decompose_casts(program.graph)
        program.graph.eliminate_dead_code()  # for instance arithmetic with types
        return program

    with _exporting:
        decompose = program_class.run_decompositions
        program_class.run_decompositions = at_need  # there is no option for it
        try:
            yield
        finally:
            program_class.run_decompositions = decompose


def _decompose_casts(graph: torch.fx.Graph) -> None:
    """In place of `x.to(dtype)`, which ONNX does not have: the copy that it makes, or x itself, whose type it is."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.to.dtype):
        if len(node.args) != 2 or node.kwargs:  # with a memory format, for instance: for the second trace
            continue
        x, dtype = node.args
        is_output = any(user.op == "output" for user in node.users)  # the program calls its outputs by name
        if x.meta["val"].dtype == dtype and not is_output:
            node.replace_all_uses_with(x)
        else:
            node.target, node.args, node.kwargs = torch.ops.aten._to_copy.default, (x,), {"dtype": dtype}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about its own optional packages and deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
