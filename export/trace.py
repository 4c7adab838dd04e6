"""Deployment form -> ONNX graph in float32, through torch's exporter."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from onnx import ModelProto
from torch import Tensor, nn

from flashrib.model.deploy import Deployed


class _Clamped(nn.Module):
    def __init__(self, network: Deployed) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> Tensor:
        y: Tensor = self.network(picture)
        return y.clamp(0.0, 1.0)


def trace(
    network: Deployed, *, opset: int, batch: int = 1, tile: tuple[int, int] | None = None, clamp: bool = False
) -> ModelProto:
    """Return the graph of `network`; its nodes of the domain `flashrib` have no bodies yet.

    Args:
        network: what `flashrib.model.fold.fold` returns.
        opset: ONNX opset, 18 or higher.
        batch: pictures of a run, static.
        tile: (H, W) in input pixels; None leaves both dynamic.
        clamp: bound the output to 0..1.
    """
    side = max(network.config.minimum, 2) + 3  # any size will do, as long as it is no multiple of anything
    example = torch.zeros(batch, 3, *(tile or (side, side + 4)))
    dynamic = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    with _quiet():
        program = torch.onnx.export(
            _Clamped(network).eval() if clamp else network,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=None if tile else (dynamic,),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for value in [*model.graph.node, *model.graph.value_info, model.graph]:
        value.ClearField("doc_string")
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces of the machine that exported
    del model.metadata_props[:]
    return model


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
