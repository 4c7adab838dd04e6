"""The builder's log, read: memory and layers of the engine.

Where there is no GPU an engine cannot be loaded and inspected, but the builder itself prints all of its layers.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

_SCRATCH = re.compile(r"Max Scratch Memory: (\d+) bytes")
_LAYER_SCRATCH = re.compile(r"Layer: (.+?) Host Persistent: .*Scratch Memory: (\d+) bytes")
_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), (?P<rest>.*)$", re.MULTILINE)
_CONSTANTS = re.compile(r"Constants: \[.*?(?=Outputs: \[|$)")
_INPUTS = re.compile(r"Inputs: \[.*?(?=Constants: \[|Outputs: \[|$)")
_TYPE = re.compile(r"Datatype: (\w+)")
_DIMENSIONS = re.compile(r"Dimensions: \[([^\]]*)\]")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")

Dimensions = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine.

    Attributes:
        name: as TensorRT calls it.
        shapes: shapes of its inputs and outputs, -1 where a side is dynamic.
        nodes: names of the ONNX nodes that it was made from, the outermost ones first where functions were inlined.
        reads: types of its inputs, such as "Half" or "FP8", as TensorRT calls them.
    """

    name: str
    shapes: tuple[Dimensions, ...]
    nodes: tuple[str, ...]
    reads: tuple[str, ...] = ()


def max_scratch(messages: Iterable[str]) -> int | None:
    """Return the largest scratch memory that the builder reported, in bytes, or None where it reported none."""
    return max((int(found) for text in messages for found in _SCRATCH.findall(text)), default=None)


def scratch_by_layer(messages: Iterable[str]) -> dict[str, int]:
    """Return the scratch memory of every layer that has one, in bytes."""
    return {name: int(size) for text in messages for name, size in _LAYER_SCRATCH.findall(text)}


def engine_layers(messages: Iterable[str]) -> list[EngineLayer]:
    """Return the layers that the builder printed (with detailed profiling verbosity), in order."""
    return [layer for text in messages if "LayerType: " in text for layer in _layers(text)]


def _layers(text: str) -> Iterator[EngineLayer]:
    for match in _LAYER.finditer(text):
        rest = match["rest"]
        shapes = tuple(_dimensions(found) for found in _DIMENSIONS.findall(_CONSTANTS.sub("", rest)))
        inputs = _INPUTS.search(rest)
        reads = tuple(_TYPE.findall(inputs[0])) if inputs is not None else ()
        yield EngineLayer(match["name"], shapes, _nodes(rest), reads)


def inspected_layers(information: str) -> list[EngineLayer]:
    """Return the layers from the JSON of TensorRT's engine inspector; none where it is not detailed.

    Format: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/advanced.html (engine inspector).
    """
    layers = []
    for entry in json.loads(information).get("Layers", []):
        if isinstance(entry, dict):
            ends = [*entry.get("Inputs", []), *entry.get("Outputs", [])]
            shapes = tuple(tuple(end["Dimensions"]) for end in ends if "Dimensions" in end)
            reads = tuple(str(end["Format/Datatype"]) for end in entry.get("Inputs", []) if "Format/Datatype" in end)
            layers.append(EngineLayer(entry.get("Name", ""), shapes, _nodes(str(entry.get("Metadata", ""))), reads))
    return layers


def inspect(trt: Any, logger: Any, plan: bytes) -> list[EngineLayer]:
    """Load an engine and return its layers; none where it cannot be loaded here, as without a GPU."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        return []
    return inspected_layers(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def _nodes(text: str) -> tuple[str, ...]:
    """Names in "[ONNX Layer: inner | outer (Function)]"."""
    names = [part.strip().split(" (")[0] for found in _NODE.findall(text) for part in found.split("|")[::-1]]
    return tuple(dict.fromkeys(names))


def _dimensions(text: str) -> Dimensions:
    parts = [part.strip() for part in text.split(",")]
    return tuple(int(part) if re.fullmatch(r"-?\d+", part) else -1 for part in parts if part)
