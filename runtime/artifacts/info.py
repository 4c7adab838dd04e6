"""What is known about a model, in one place: `ModelInfo`.

`export` and `calibration` write it into the metadata properties `flashrib.*` of ONNX files and into the manifests beside engines and
packages; `runtime` reads it back from there, and a session has it as `session.info`. No other description of a model exists.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Protocol

from flashrib.runtime import schema
from flashrib.runtime.errors import ModelError, SilentModelError
from flashrib.runtime.noise import MOST_SEEDS

PREFIX = "flashrib."


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Description of a model. Each field has a neutral value, which is what a file means that does not state it.

    Attributes:
        architecture: preset name such as "sst-light", or the family ("sst", "esc-rib") with "custom" for other sizes. Neutral: "".
        scale: integer magnification, 1..8. Neutral: 1, the output is as large as the input.
        alignment: tile alignment in input pixels (the least common multiple of all window sides). A tile whose origin is a multiple
            of it sees the windows of the whole picture; any other origin changes the partition of the whole tile. Neutral: 1.
        minimum: smallest side in input pixels that a run accepts. Smaller pictures are padded by reflection before. Neutral: 1.
        windows: (rows, columns) of the window of every attention layer of a block, in order. Neutral: none.
        ranks: rank R of the bias per layer of a block. Neutral: none.
        heads: number of heads per layer of a block. Neutral: none.
        parameters: number of parameters of the training-time network. Neutral: 0, unknown.
        precision: "fp32", "fp16", "bf16", "int8" or "fp8": what the model computes in. Neutral: "fp32".
        whole_picture: True where an output pixel depends on the whole picture (ESC-RIB averages over it), so that tiles change the
            result everywhere and not only near their seams. Neutral: False.
        attention: form of the attention operator in the file ("onnxruntime", "standard", ...). Neutral: "", it is not a file's.
        source_sha256: hash of the checkpoint that the model was made from. Neutral: "", unknown.
        version: version of flashrib that wrote the file. Neutral: "", it is not a file's.
        io: "fp32" or "fp16": type of input and output as the file declares them; a session takes and gives float32 all the same.
            Neutral: "fp32".
        batch: pictures of a run as the file declares them; a session takes any number. Neutral: 1.
        opset: ONNX opset of the file. Neutral: 0, it is no ONNX file or does not say.
        clamp: True where the output is bounded to 0..1. Neutral: False.
        calibration: of a quantized file: method, pictures, budget, layers and PSNR, in JSON's types. Neutral: None.
        task: "upscale", "denoise" (a picture of the same size) or "classify" (scores). Neutral: "upscale".
        channels: channels of the input, 3 being RGB. Neutral: 3.
        fixed_size: (H, W) in input pixels where the model takes this size only. Neutral: None, it takes any from `minimum` on.
        noise: standard deviation of the second input, noise of the picture's size, 1 being white. Neutral: 0.0, there is one input.
        noise_seed: seed of the noise that the model has inside, that of its first `alignment` x `alignment` pixels, repeated. Neutral:
            None, it has none.
        weights_sha256: of an ONNX file: hash of the names, types and shapes of its initialisers, and hash of their values, with a
            colon between; see `flashrib.runtime.artifacts.onnx_weights`. Neutral: "", unknown.
        architecture_config: facts about the architecture that the keys and shapes of a checkpoint do not tell, in JSON's types.
            Neutral: {}.
    """

    architecture: str = ""
    scale: int = 1
    alignment: int = 1
    minimum: int = 1
    windows: tuple[tuple[int, int], ...] = ()
    ranks: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    parameters: int = 0
    precision: str = "fp32"
    whole_picture: bool = False
    attention: str = ""
    source_sha256: str = ""
    version: str = ""
    io: str = "fp32"
    batch: int = 1
    opset: int = 0
    clamp: bool = False
    calibration: dict[str, Any] | None = None
    task: str = "upscale"
    channels: int = 3
    fixed_size: tuple[int, int] | None = None
    noise: float = 0.0
    noise_seed: int | None = None
    weights_sha256: str = ""
    architecture_config: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields in JSON's types, but for those that a file states only where they differ from their neutral value."""
        neutral = ModelInfo()
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: value
            for name, value in values.items()
            if name in _ALWAYS or name in _SINCE_LATER or value != getattr(neutral, name)
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelInfo":
        """Read what `to_json` returned; lists become tuples where the field is one.

        Raises:
            ValueError: a field is missing or unknown, or breaks its rule in `SCHEMA`.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"the model is {schema.shown(values)}, but it must be {schema.OBJECT.words}")
        if missing := [name for name in _ALWAYS if name not in values]:
            raise ValueError(f"{missing[0]!r} of the model is missing")
        schema.check(values, SCHEMA)
        return cls(**{name: _tuples(value) if name in _TUPLES else value for name, value in values.items()})

    def to_properties(self) -> dict[str, str]:
        """Return the flat string map that ONNX stores: strings as they are, everything else as JSON.

        Properties that may be missing come first, so that a file cut off within the map always lacks one that may not.
        """
        values = sorted(self.to_json().items(), key=lambda item: item[0] in _ALWAYS)
        return {PREFIX + name: value if isinstance(value, str) else json.dumps(value) for name, value in values}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], source: str) -> "ModelInfo":
        """Read the map that `to_properties` wrote.

        Args:
            properties: metadata properties of the file; those that are not ours are ignored.
            source: name of the file, for the error message.

        Raises:
            SilentModelError: none is there.
            ModelError: a property is missing or malformed.
        """
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            text = properties.get(PREFIX + field.name)
            if text is None and field.name not in _ALWAYS:
                continue  # neutral, or a file from before the field existed
            if text is None and not any(key.startswith(PREFIX) for key in properties):
                raise SilentModelError(
                    f"{source}: says nothing about itself (metadata properties {PREFIX}*): it was not made by flashrib, or another"
                    " program has removed them: export it from its checkpoint, or say with --arch and --scale what it is"
                )
            if text is None:
                raise ModelError(
                    f"{source}: the metadata property {PREFIX + field.name!r} is missing: another program has changed this ONNX"
                    " file, or it was cut off: export it from its checkpoint"
                )
            try:
                values[field.name] = text if field.type is str else schema.parse_json(text)
                schema.check({field.name: values[field.name]}, SCHEMA)
            except ValueError as error:
                raise ModelError(
                    f"{source}: the metadata property {PREFIX + field.name!r} is malformed: {schema.shown(text)}: it must be"
                    f" {SCHEMA[field.name].words}: export the model again"
                ) from error
        return cls.from_json(values)


class Configuration(Protocol):
    """What `info_of` must know about the configuration of a network."""

    def facts(self) -> dict[str, Any]:
        """Fields of `ModelInfo` that the configuration knows."""


def info_of(config: Configuration, parameters: int, **rest: Any) -> ModelInfo:
    """Return the description of a network of `parameters` parameters; `rest` are the fields that tell how it was made."""
    return ModelInfo(**config.facts() | {"parameters": parameters} | rest)


_SIDE = schema.whole(1, 1_000_000)
_HEADS = schema.several(schema.whole(1, 100_000))

SCHEMA = {
    "architecture": schema.text(),
    "scale": schema.whole(1, 16),
    "alignment": _SIDE,
    "minimum": _SIDE,
    "windows": schema.several(schema.several(_SIDE, 2, 2)),
    "ranks": _HEADS,
    "heads": _HEADS,
    "parameters": schema.whole(0, 10**13),
    "precision": schema.one_of("fp32", "fp16", "bf16", "int8", "fp8"),
    "whole_picture": schema.BOOLEAN,
    "attention": schema.text(),
    "source_sha256": schema.text(),
    "version": schema.text(),
    "io": schema.one_of("fp32", "fp16"),
    "batch": schema.whole(1, 1024),
    "opset": schema.whole(0, 1000),
    "clamp": schema.BOOLEAN,
    "calibration": schema.optional(schema.OBJECT),
    "task": schema.one_of("upscale", "denoise", "classify"),
    "channels": schema.whole(1, 1024),
    "fixed_size": schema.optional(schema.several(_SIDE, 2, 2)),
    "noise": schema.number(0, 1000),
    "noise_seed": schema.optional(schema.whole(0, MOST_SEEDS - 1)),
    "weights_sha256": schema.text(),
    "architecture_config": schema.OBJECT,
}
"""What each field may be; the fields of files are checked by it, whoever wrote them."""

# Fields that every file of flashrib states, and those that later versions added and have stated in every file since.
_ALWAYS = (
    "architecture",
    "scale",
    "alignment",
    "minimum",
    "windows",
    "ranks",
    "heads",
    "parameters",
    "precision",
    "whole_picture",
    "attention",
    "source_sha256",
    "version",
)
_SINCE_LATER = ("io", "batch", "opset", "clamp", "calibration")
_TUPLES = ("windows", "ranks", "heads", "fixed_size")


def _tuples(value: Any) -> Any:
    """Turn JSON's lists into tuples, at every depth."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
