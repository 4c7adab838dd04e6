"""Places where a network can be cut in two with little to carry over: behind the sums of the residual stream.

To see what one quantized layer does to the output, only what follows it has to run. So the network is run piece by piece, each piece
once per tile for the values at the next cut, and for a layer the piece that it is in and the rest.
"""

import dataclasses

from onnx import ModelProto

from flashrib.calibration.layers import PRODUCTS, Layer

MOST_CARRIED = 3  # values at a cut: residual stream, the block's input, the shallow features


@dataclasses.dataclass(frozen=True)
class Piece:
    """Nodes between two cuts.

    Attributes:
        start: values known at its beginning, none for the first.
        end: values known at its end that the rest needs; the output for the last.
        layers: candidates within it.
    """

    start: tuple[str, ...]
    end: tuple[str, ...]
    layers: tuple[Layer, ...]


def pieces(model: ModelProto, layers: list[Layer]) -> list[Piece]:
    """Cut a network into the pieces that hold at least one of `layers` each."""
    nodes = list(model.graph.node)
    constants = {tensor.name for tensor in model.graph.initializer}
    made: dict[str, int] = {}  # values that cost something: those behind a product
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        if node.op_type in PRODUCTS or any(name in made for name in node.input):
            made.update((name, index) for name in node.output if name)
        for name in node.input:
            last[name] = index
    for value in model.graph.output:
        last[value.name] = len(nodes)
    cuts: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    for index, node in enumerate(nodes):
        if node.op_type == "Add" and node.output[0] in made and not any(name in constants for name in node.input):
            carried = tuple(name for name, born in made.items() if born <= index < last.get(name, -1))
            if node.output[0] in carried and len(carried) <= MOST_CARRIED:
                cuts.append((index + 1, carried))
    place = {node.name: index for index, node in enumerate(nodes)}
    groups: dict[int, list[Layer]] = {}
    for layer in layers:
        which = max(i for i, (position, _) in enumerate(cuts) if position <= place[layer.node])
        groups.setdefault(which, []).append(layer)
    starts = sorted(groups)
    output = (model.graph.output[0].name,)
    result: list[Piece] = []
    for which, following in zip(starts, [*starts[1:], None], strict=True):
        start = cuts[which][1] if result else ()  # what comes before the first candidate belongs to the first piece
        end = cuts[following][1] if following is not None else output
        result.append(Piece(start, end, tuple(groups[which])))
    return result
