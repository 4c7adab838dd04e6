"""What a model file says about itself: the `flashrib.*` metadata properties of an ONNX file.

`export` writes them, `runtime` reads them; both through `ModelMetadata`, so that the two cannot drift apart.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from flashrib.runtime.errors import ModelError

PREFIX = "flashrib."


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """Description of a model file.

    Attributes:
        architecture: preset name such as "sst-light", or the family ("sst", "esc-rib") with "custom" for other sizes.
        scale: integer magnification.
        alignment: least common multiple of all window sides, in input pixels.
        minimum: smallest side in input pixels that the model takes.
        windows: (rows, columns) of the window of every attention layer of a block, in order.
        ranks: rank R of the bias per layer of a block.
        heads: number of heads per layer of a block.
        parameters: number of parameters of the training-time network.
        precision: "fp32", "fp16", "bf16", "int8" or "fp8": what the file computes in.
        whole_picture: True where every output pixel depends on the whole input picture.
        attention: form of the attention operator in the file ("onnxruntime", "standard", ...).
        source_sha256: hash of the checkpoint that the file was made from.
        version: version of flashrib that wrote the file.
        io: "fp32" or "fp16": type of `input` and `output`.
        batch: pictures of a run.
        opset: ONNX opset of the file; 0 where an older version of flashrib wrote it and did not say.
        clamp: True where the output is bounded to 0..1.
        calibration: of a quantized file: method, pictures, budget, layers and PSNR, in JSON's types; otherwise None.
    """

    architecture: str
    scale: int
    alignment: int
    minimum: int
    windows: tuple[tuple[int, int], ...]
    ranks: tuple[int, ...]
    heads: tuple[int, ...]
    parameters: int
    precision: str
    whole_picture: bool
    attention: str
    source_sha256: str
    version: str
    io: str = "fp32"
    batch: int = 1
    opset: int = 0
    clamp: bool = False
    calibration: dict[str, Any] | None = None

    def to_properties(self) -> dict[str, str]:
        """Return the flat string map that ONNX stores: strings as they are, everything else as JSON.

        Properties that may be missing come first, so that a file cut off within the map always lacks one that may not.
        """
        fields = sorted(dataclasses.fields(self), key=lambda field: field.default is dataclasses.MISSING)
        values = {field.name: getattr(self, field.name) for field in fields}
        return {PREFIX + key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], source: str) -> "ModelMetadata":
        """Read the map that `to_properties` wrote.

        Args:
            properties: metadata properties of the file; those without our prefix are ignored.
            source: name of the file, for the error message.

        Raises:
            ModelError: a property is missing or malformed.
        """
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            text = properties.get(PREFIX + field.name)
            if text is None and field.default is not dataclasses.MISSING:
                continue  # a file from before the field existed
            if text is None:
                raise ModelError(
                    f"{source}: the metadata property {PREFIX + field.name!r} is missing, so this ONNX file was not made by"
                    " flashrib: export it from its checkpoint"
                )
            try:
                values[field.name] = text if field.type is str else _tuples(json.loads(text))
            except json.JSONDecodeError as error:
                raise ModelError(
                    f"{source}: the metadata property {PREFIX + field.name!r} is malformed: {text!r}"
                ) from error
        return cls(**values)


def _tuples(value: Any) -> Any:
    """Turn JSON's lists into tuples, at every depth."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
