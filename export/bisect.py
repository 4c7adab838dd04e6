"""Finds the first layer whose values diverge between two models, each a checkpoint or an ONNX file.

A layer is known by its module path in the deployment form, such as `blocks.0.ffns.1.proj`. PyTorch's exporter keeps these paths in
the names of the initialisers (`blocks.0.ffns.1.proj.bias`), so the node that consumes them gives the layer's output, whatever the
tensors in between are called, and the names survive changes of the attention's body, casts, and Q/DQ nodes. For every layer both
the input and the output are compared: an input that differs while all layers before it agree convicts what stands in between
(normalisation, GELU, the attention operator with its gate, residual sums).
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from torch import nn

from flashrib.export.emulate import emulated
from flashrib.model.checkpoint import load_model
from flashrib.model.fold import fold
from flashrib.runtime.artifacts.kinds import CHECKPOINT, recognise_file
from flashrib.runtime.errors import ModelError, SessionError
from flashrib.runtime.quality.rms import rms_ratio
from flashrib.runtime.sessions.onnx_cpu import open_onnx
from flashrib.runtime.sessions.protocol import Batch

LEAST_LAYER_RMS = 1e-6  # values inside a network have any size; this much keeps the ratio defined for zeros

# Nodes that hand an initialiser on to the node that computes with it.
_PASSING = {"Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
# Nodes whose sum with a bias is one layer.
_PRODUCTS = {"Conv", "Gemm", "MatMul", "MatMulInteger"}

Values = NDArray[Any]
_Hints = tuple[str | None, int | None, None, str | None]  # as `load_model` takes them
Inputs = Mapping[str, Batch]


@dataclasses.dataclass(frozen=True)
class Divergence:
    """How far one tensor is from the reference's.

    Attributes:
        layer: module path in the deployment form; "output" for the network's output.
        end: "input" or "output" of the layer.
        rms_ratio: RMS of the difference over RMS of the reference's values; infinite where there is NaN or infinity.
        after: the layer compared before this one; empty for the first.
    """

    layer: str
    end: str
    rms_ratio: float
    after: str

    def __str__(self) -> str:
        """Say it in a few words."""
        where = "the network's output" if self.layer == "output" else f"the {self.end} of {self.layer}"
        after = f" (after {self.after})" if self.end == "input" and self.after else ""
        what = "holds NaN or infinity" if math.isinf(self.rms_ratio) else f"differs by {self.rms_ratio:.2e} (RMS ratio)"
        return f"{where}{after} {what}"


def bisect(
    reference: Path,
    artifact: Path,
    batch: Batch,
    bound: float,
    *,
    arch: str | None = None,
    scale: int | None = None,
    key: str | None = None,
    noise: Batch | None = None,
) -> tuple[Divergence | None, list[Divergence]]:
    """Compare all layers that both models have, in the order of computation.

    Args:
        reference: what is right, a checkpoint (folded, in float32) or an ONNX file.
        artifact: what is suspected, of either kind.
        batch: (1, 3, H, W) float32, the input.
        bound: largest RMS ratio that is no divergence.
        arch: see `load_model`, for checkpoints.
        scale: see `load_model`, for checkpoints.
        key: see `load_model`, for checkpoints.
        noise: for models that take some, see `flashrib.runtime.quality.parity_expected.noise_for`.

    Returns:
        The first divergence over the bound, None where there is none; and all tensors compared.

    Raises:
        ModelError: a file cannot be loaded, or the models have no layer in common.
        SessionError: a model cannot be run.
    """
    inputs = {"input": batch} | ({} if noise is None else {"noise": noise})
    hints = (arch, scale, None, key)
    expected = _tensors(reference, inputs, hints)
    found = _tensors(artifact, inputs, hints)
    compared: list[Divergence] = []
    after = ""
    for (layer, end), values in found.items():
        known = expected.get((layer, end))
        # Passes may change the layout of a tensor; the layer's other end still tells.
        if known is None or known.shape != values.shape:
            continue
        compared.append(Divergence(layer, end, rms_ratio(known, values, LEAST_LAYER_RMS), after))
        after = layer
    if all(divergence.layer == "output" for divergence in compared):
        raise ModelError(
            f"{artifact}: shares no layer's name with {reference}, so that no layer can be compared: export both with flashrib"
        )
    return next((divergence for divergence in compared if divergence.rms_ratio > bound), None), compared


def layer_tensors(model: ModelProto) -> dict[tuple[str, str], list[str]]:
    """Find the tensors that enter and leave the layers of an ONNX graph, in the order of the nodes.

    Layers that share an initialiser of equal value are left out, because its name says nothing about which one is meant.

    Returns:
        (layer, "input" or "output") -> names of tensors; several for a layer with several outputs.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    # Constants that are handed on (cast, dequantised) keep the name that they have in the network.
    layer_of = {i.name: i.name.rpartition(".")[0] for i in graph.initializer if "." in i.name}
    for node in graph.node:
        if node.op_type in _PASSING and node.input and node.input[0] in layer_of:
            layer_of[node.output[0]] = layer_of[node.input[0]]
    nodes: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        layers = {layer_of[name] for name in node.input if name in layer_of} if node.op_type not in _PASSING else set()
        for layer in layers:
            nodes.setdefault(layer, []).append(node)
    tensors: dict[tuple[str, str], list[str]] = {}
    order = {id(node): index for index, node in enumerate(graph.node)}
    for layer, users in sorted(nodes.items(), key=lambda item: order[id(item[1][-1])]):
        first, last = users[0], users[-1]
        # A matmul and the sum with its bias are one layer: two nodes where the matmul's weight has kept its name.
        if len(users) > 2 or (len(users) == 2 and not set(first.output) & set(last.input)):
            continue
        data = [name for name in last.input if name not in layer_of]
        if len(data) == 1:
            product = producers.get(data[0])
            while product is not None and product.op_type in _PASSING:
                product = producers.get(product.input[0])
            source = product.input[0] if last.op_type == "Add" and product and product.op_type in _PRODUCTS else data[0]
            tensors[layer, "input"] = [source]
        tensors[layer, "output"] = [name for name in last.output if name]
    tensors["output", "output"] = [graph.output[0].name]
    return tensors


def _tensors(path: Path, inputs: Inputs, hints: _Hints) -> dict[tuple[str, str], Values]:
    return _from_checkpoint(path, inputs, hints) if recognise_file(path) == CHECKPOINT else _from_onnx(path, inputs)


def _from_checkpoint(path: Path, inputs: Inputs, hints: _Hints) -> dict[tuple[str, str], Values]:
    """Run the deployment form and keep what enters and leaves the modules that have parameters of their own."""
    network = fold(load_model(path, *hints))
    kept: dict[tuple[str, str], Values] = {}

    def keep(layer: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if inputs:
                kept[layer, "input"] = inputs[0].numpy()
            kept[layer, "output"] = _flat(output) if isinstance(output, tuple) else output.numpy()

        return hook

    for layer, module in network.named_modules():
        if layer and any(True for _ in module.parameters(recurse=False)):
            module.register_forward_hook(keep(layer))
    with torch.inference_mode():
        taken = zip(network.config.inputs(), inputs.values(), strict=False)  # those that take no noise have one
        kept["output", "output"] = network(*(torch.from_numpy(value) for _, value in taken)).numpy()
    return kept


def _from_onnx(path: Path, inputs: Inputs) -> dict[tuple[str, str], Values]:
    """Run an ONNX file with the layers' tensors as further outputs."""
    try:
        model = onnx.load(path)
    except Exception as error:
        raise ModelError(f"{path}: cannot be loaded as an ONNX file: {' '.join(str(error).split())}") from error
    tensors = layer_tensors(model)
    if TensorProto.BFLOAT16 in {initializer.data_type for initializer in model.graph.initializer}:
        # ONNX Runtime's CPU has no kernels for it. The rounded value of `x` is `x_exact` in the emulation.
        model = emulated(model)
        made = {name for node in model.graph.node for name in node.output}
        for key, found in tensors.items():
            tensors[key] = [exact if (exact := f"{name}_exact") in made else name for name in found]
    names = list(dict.fromkeys(name for found in tensors.values() for name in found))
    ends = {end.name for end in (*model.graph.input, *model.graph.output)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in ends)
    try:
        session = open_onnx(model.SerializeToString())
        ends_in = session.get_inputs()
        taken = {end.name: value for end, value in zip(ends_in, inputs.values(), strict=False)}
        half = ends_in[0].type == "tensor(float16)"
        fed = {name: value.astype(np.float16) if half else value for name, value in taken.items()}
        fetched = [name for name in names if name not in taken]
        values = dict(zip(fetched, session.run(fetched, fed), strict=True)) | taken
    except Exception as error:
        raise SessionError(f"{path}: ONNX Runtime cannot show its layers: {' '.join(str(error).split())}") from error
    return {
        key: _flat(values[name] for name in found) if len(found) > 1 else values[found[0]]
        for key, found in tensors.items()
    }


def _flat(tensors: Iterator[Any] | tuple[Any, ...]) -> Values:
    return np.concatenate([np.asarray(tensor).ravel() for tensor in tensors])
