"""Network -> ONNX graph of its form for GPUs, each fused pass a node that the library has a kernel for."""

from importlib.metadata import version
from typing import Any

import onnx
import onnx.parser
import torch
from onnx import ModelProto

from flashrib.export.describe import describe_network
from flashrib.export.operators.bodies import default_bodies, with_body
from flashrib.export.operators.operator import Place
from flashrib.export.operators.window.row import WINDOW_ATTENTION
from flashrib.export.passes import run_passes
from flashrib.export.save import hash_of_initializers
from flashrib.export.trace import trace
from flashrib.model.architectures.registry import architecture_of
from flashrib.model.gpu import gpu_network
from flashrib.model.network import Network
from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.errors import UsageError

OPSET = 20  # has Gelu as one operator
BF16_OPSET = 23  # Conv takes bfloat16 from 22 on


def traced_with_passes(network: Network, precision: str, size: Side | None, source_sha256: str) -> ModelProto:
    """Return the graph of `network` as `flashrib.model.gpu.gpu_network` computes it, with metadata.

    Args:
        network: in training form; stays as it is.
        precision: "fp32", "fp16" or "bf16"; input and output are float32.
        size: (H, W) of the input in pixels; None leaves both dynamic.
        source_sha256: hash of the checkpoint.

    Raises:
        UsageError: a size below the network's minimum, or an architecture whose passes have no kernels in a library.
    """
    config = network.config
    if architecture_of(config).task != "upscale":
        raise UsageError(
            f"{config.name}: from a checkpoint, a library is made for networks that upscale: export it with flashrib export, and build"
            " from the ONNX file"
        )
    if size is not None and min(size) < config.minimum:
        raise UsageError(
            f"{size[0]}x{size[1]}: a side is below {config.minimum} pixels, the least that {config.name} takes"
        )
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    opset = BF16_OPSET if precision == "bf16" else OPSET
    network_for_gpus: Any = gpu_network(network, dtype)  # has its configuration, like a deployment form
    model = trace(network_for_gpus, opset=opset, tile=size, minimum=config.minimum)
    run_passes(model)
    model = with_body(model, default_bodies(model, precision))
    _add_window_attention(model, precision)
    info = describe_network(
        network,
        fixed_size=size,
        precision=precision,
        attention=WINDOW_ATTENTION.default[precision],
        source_sha256=source_sha256,
        opset=opset,
        weights_sha256=hash_of_initializers(model),
    )
    onnx.helper.set_model_props(model, info.to_properties())
    model.producer_name, model.producer_version = "flashrib", version("flashrib")
    return model


def _add_window_attention(model: ModelProto, precision: str) -> None:
    """Add the body of the attention operator, in place, which that of `gpu_window_attention` calls."""
    nodes = [node for node in model.graph.node if node.op_type == "gpu_window_attention"]
    if not nodes:
        return
    body = WINDOW_ATTENTION.bodies[WINDOW_ATTENTION.default[precision]]
    opsets = {o.domain: o.version for o in model.opset_import if o.domain == ""} | dict(body.opsets)
    for text in body.functions(Place(model, nodes, opsets)):
        model.functions.append(onnx.parser.parse_function(text) if isinstance(text, str) else text)
    there = {o.domain for o in model.opset_import}
    model.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in opsets.items() if d not in there)
