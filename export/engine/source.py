"""The ONNX file as the builder takes it: described, checked, of the form and size that the engine is built for."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from flashrib.export.operators.bodies import body_of_operators, operator_nodes, operators_of, with_body
from flashrib.export.operators.operator import AttentionLayer
from flashrib.export.operators.table import OPERATORS
from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.artifacts.files import sha256_of
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.onnx_file import describe_onnx, external_files
from flashrib.runtime.errors import ModelError
from flashrib.runtime.nvidia.flavours import Flavour, version_numbers

_IO = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


@dataclasses.dataclass(frozen=True)
class Source:
    """An ONNX file that an engine is built from.

    Attributes:
        path: of the file; external data is looked for beside it.
        model: its content without external data.
        metadata: what it says about itself.
        sha256: hash of the file and its external data.
        dim: channels of the feature map between the layers.
        batch: pictures of one run.
        static: (H, W) where it takes one size only.
        io: dtype of input and output.
        layers: its attention layers whose fusion is to be checked.
    """

    path: Path
    model: ModelProto
    metadata: ModelInfo
    sha256: str
    dim: int
    batch: int
    static: Side | None
    io: str
    layers: tuple[AttentionLayer, ...]


def read_source(path: Path) -> Source:
    """Read and check an ONNX file.

    Raises:
        ModelError: missing, damaged, made by another tool, external data missing or outside its folder, or nothing that an engine
            can be built from.
    """
    metadata = describe_onnx(path)
    if metadata.calibration is not None and metadata.calibration.get("rest") == "fp32":
        raise ModelError(
            f"{path}: what is not quantized computes in fp32, but TensorRT fuses attention in fp16 and bf16 only: calibrate an export"
            " with --precision fp16"
        )
    if metadata.precision == "fp32":
        raise ModelError(
            f"{path}: computes in fp32, but TensorRT fuses attention in fp16 and bf16 only: export it with --precision fp16"
        )
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's and onnx's own
        raise ModelError(f"{path}: not an ONNX file, or a damaged one: {' '.join(str(error).split())}") from error
    sha256 = sha256_of(path, *external_files(path))
    nodes = operator_nodes(model)
    if not nodes:
        wanted = " or ".join(f"flashrib::{op_type}" for op_type in OPERATORS)
        raise ModelError(f"{path}: has no node {wanted}, so nothing would be fused: export it again")
    rows = [OPERATORS[node.op_type] for node in nodes]
    layers = tuple(row.layer(node, model) for row, node in zip(rows, nodes, strict=True) if row.layer is not None)
    batch, static, io = _input(path, model)
    return Source(path, model, metadata, sha256, _dim(path, model), batch, static, io, layers)


def engine_bodies(model: ModelProto, flavour: Flavour, version: str) -> dict[str, str]:
    """Return the bodies that this version of TensorRT is given, by the operators' names."""
    new = version_numbers(version) >= flavour.attention
    return {row.op_type: row.engine_body if new else row.older_engine_body for row in operators_of(model)}


def prepared_model(source: Source, size: Side | None, bodies: str | Mapping[str, str]) -> ModelProto:
    """Return the model with the given bodies of its operators, and with `size` as its only size where one is given."""
    model = ModelProto()
    model.CopyFrom(source.model)
    if size is not None and source.static is None:
        scale = source.metadata.scale
        for value, factor in ((model.graph.input[0], 1), (model.graph.output[0], scale)):
            for dimension, side in zip(value.type.tensor_type.shape.dim[2:], size, strict=True):
                dimension.dim_value = factor * side
        del model.graph.value_info[:]
    elif all(body == source.metadata.attention for body in body_of_operators(model, bodies).values()):
        return model
    return with_body(model, bodies)


def _input(path: Path, model: ModelProto) -> tuple[int, Side | None, str]:
    """Return batch, static size and dtype of the input."""
    names = [v.name for v in model.graph.input], [v.name for v in model.graph.output]
    if names != (["input"], ["output"]):
        raise ModelError(f"{path}: maps {names[0]} to {names[1]}, but it must map 'input' to 'output': export it anew")
    kinds = [value.type.tensor_type.elem_type for value in (model.graph.input[0], model.graph.output[0])]
    if kinds[0] not in _IO or kinds[0] != kinds[1]:
        raise ModelError(f"{path}: input and output must both be float32 or float16: export it anew")
    batch, _, height, width = (d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    return max(batch, 1), (height, width) if height and width else None, _IO[kinds[0]]


def _dim(path: Path, model: ModelProto) -> int:
    """Return the channels that the first convolution makes."""
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        name = node.input[1]
        while name not in initializers and name in producers and producers[name].input:
            name = producers[name].input[0]  # a cast or a dequantisation
        if name in initializers:
            return int(initializers[name].dims[0])
    raise ModelError(f"{path}: has no convolution, so it is no network of flashrib's: export it anew")
