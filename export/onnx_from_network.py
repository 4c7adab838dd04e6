"""Deployment form -> ONNX file."""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import onnx
import torch
from onnx import ModelProto

from flashrib.export.forms import with_attention_form
from flashrib.model.build import Network
from flashrib.model.deploy import Deployed
from flashrib.model.fold import fold
from flashrib.runtime.errors import FlashribError, ModelError
from flashrib.runtime.metadata import ModelMetadata

OPSET = 20  # the highest that vs-mlrt and chaiNNer take; has Gelu as one operator


def onnx_from_network(
    network: Network, *, attention: str = "onnxruntime", source_sha256: str = "", opset: int = OPSET
) -> ModelProto:
    """Fold a network and export it with dynamic height and width, in float32.

    Input `input` (1, 3, H, W) and output `output` (1, 3, rH, rW), RGB, 0..1, not clamped; H and W at least `config.minimum`.

    Args:
        network: SST or ESC in training form; stays as it is.
        attention: form of the attention operator, a key of `flashrib.export.forms.FORMS`.
        source_sha256: hash of the checkpoint, for the metadata.
        opset: ONNX opset, 18 or higher.

    Raises:
        ModelError: the exported graph is not valid ONNX.
        UsageError: no such form.
    """
    parameters = sum(p.numel() for p in network.parameters())
    model = with_attention_form(_trace(fold(network), opset), attention)
    config = network.config
    metadata = ModelMetadata(
        architecture=config.name,
        scale=config.scale,
        alignment=config.alignment,
        minimum=config.minimum,
        windows=config.windows,
        ranks=config.ranks,
        heads=config.heads if isinstance(config.heads, tuple) else (config.heads,),
        parameters=parameters,
        precision="fp32",
        whole_picture=config.whole_picture,
        attention=attention,
        source_sha256=source_sha256,
        version=version("flashrib"),
    )
    onnx.helper.set_model_props(model, metadata.to_properties())
    model.producer_name, model.producer_version = "flashrib", version("flashrib")
    try:
        onnx.checker.check_model(model, full_check=False)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the exported graph of {config.name} is not valid ONNX: {error}") from error
    return model


def save_onnx(model: ModelProto, path: str | Path) -> None:
    """Write a model atomically.

    Raises:
        FlashribError: the file cannot be written.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".tmp", delete=False) as file:
            temporary = file.name
            file.write(model.SerializeToString())
        os.chmod(temporary, 0o644)  # a temporary file is private
        os.replace(temporary, path)
    except OSError as error:
        raise FlashribError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _trace(network: Deployed, opset: int) -> ModelProto:
    side = max(network.config.minimum, 2) + 3  # any size will do, as long as it is no multiple of anything
    example = torch.zeros(1, 3, side, side + 4)
    dimensions = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=(dimensions,),
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
