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
from flashrib.runtime.artifacts.onnx_weights import check_weights
from flashrib.runtime.errors import ModelError
from flashrib.runtime.noise import padded
from flashrib.runtime.nvidia.flavours import Flavour, version_numbers

_SIDES = ("height", "width")
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
        batch: images of one run.
        inputs: name -> shape of its inputs; "height" and "width", and the same with "noise_", stand for sides that are open.
        static: (H, W) where it takes one size only.
        io: dtype of inputs and outputs.
        layers: its attention layers whose fusion is to be checked.
    """

    path: Path
    model: ModelProto
    metadata: ModelInfo
    sha256: str
    dim: int
    batch: int
    inputs: Mapping[str, tuple[int | str, ...]]
    static: Side | None
    io: str
    layers: tuple[AttentionLayer, ...]

    def shapes(self, size: Side) -> dict[str, tuple[int, ...]]:
        """Shapes of all inputs for images of `size` (H, W), by name."""
        about = self.metadata
        sides = dict(zip(_SIDES, size, strict=True))
        sides |= {f"noise_{axis}": about.scale * padded(side, about.alignment) for axis, side in sides.items()}
        return {
            name: tuple(sides[axis] if isinstance(axis, str) else axis for axis in shape)
            for name, shape in self.inputs.items()
        }


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
    check_weights(path, metadata)
    nodes = operator_nodes(model)
    if not nodes:
        wanted = " or ".join(f"flashrib::{op_type}" for op_type in OPERATORS)
        raise ModelError(f"{path}: has no node {wanted}, so nothing would be fused: export it again, without --inline")
    rows = [OPERATORS[node.op_type] for node in nodes]
    layers = tuple(row.layer(node, model) for row, node in zip(rows, nodes, strict=True) if row.layer is not None)
    inputs, io = _inputs(path, model, metadata)
    batch = next((shape[0] for shape in inputs.values() if shape and isinstance(shape[0], int)), 1)
    static = None if _open(inputs) else metadata.fixed_size or _sides(inputs)
    return Source(path, model, metadata, sha256, _dim(path, model), batch, inputs, static, io, layers)


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
        for value in model.graph.input:
            for dimension, side in zip(value.type.tensor_type.shape.dim, source.shapes(size)[value.name], strict=True):
                dimension.dim_value = side
        output = model.graph.output[0].type.tensor_type.shape.dim
        if len(output) == 4:  # an image
            output[2].dim_value, output[3].dim_value = scale * size[0], scale * size[1]
        del model.graph.value_info[:]
    elif all(body == source.metadata.attention for body in body_of_operators(model, bodies).values()):
        return model
    return with_body(model, bodies)


def _inputs(path: Path, model: ModelProto, metadata: ModelInfo) -> tuple[dict[str, tuple[int | str, ...]], str]:
    """Return shapes and dtype of the inputs.

    Raises:
        ModelError: they are not as flashrib exports them.
    """
    graph = model.graph
    names = [value.name for value in graph.input], [value.name for value in graph.output]
    if metadata.task in ("upscale", "classify") and (names[0][:1], names[1]) != (["input"], ["output"]):
        raise ModelError(f"{path}: maps {names[0]} to {names[1]}, but it must map 'input' to 'output': export it again")
    kinds = [value.type.tensor_type.elem_type for value in (graph.input[0], graph.output[0])]
    if kinds[0] not in _IO or kinds[0] != kinds[1]:
        raise ModelError(f"{path}: input and output must both be float32 or float16: export it again")
    shapes: dict[str, tuple[int | str, ...]] = {}
    for value in graph.input:
        shapes[value.name] = tuple(d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim)
        unknown = [
            axis for axis in shapes[value.name] if isinstance(axis, str) and axis.removeprefix("noise_") not in _SIDES
        ]
        if unknown:
            raise ModelError(
                f"{path}: the size {unknown[0]!r} of the input {value.name!r} is open, and an engine needs it: export it with --tile HxW"
            )
    return shapes, _IO[kinds[0]]


def _open(inputs: Mapping[str, tuple[int | str, ...]]) -> bool:
    return any(isinstance(axis, str) for shape in inputs.values() for axis in shape)


def _sides(inputs: Mapping[str, tuple[int | str, ...]]) -> Side | None:
    """Return (H, W) of the first input that is an image."""
    images = [shape for shape in inputs.values() if len(shape) == 4]
    return (int(images[0][2]), int(images[0][3])) if images else None


def _dim(path: Path, model: ModelProto) -> int:
    """Return the channels that the first convolution makes, or the first matmul with a constant where there is none."""
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    for op_type, axis in (("Conv", 0), ("MatMul", -1)):
        for node in model.graph.node:
            if node.op_type != op_type:
                continue
            name = node.input[1]
            while name not in initializers and name in producers and producers[name].input:
                name = producers[name].input[0]  # a cast or a dequantisation
            if name in initializers:
                return int(initializers[name].dims[axis])
    raise ModelError(f"{path}: has no convolution or matmul, so it is no network of flashrib's: export it again")
