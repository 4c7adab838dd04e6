"""An operator from outside: attention over a neighbourhood, made of a row of the table and nothing else.

`flashrib::Neighbours <reach> (x, weights) => (y, total)`: y[i] = weights * (the sum of x over i - reach .. i + reach), along the last axis.
`total`, the sum of |x|, shows an output that stays float32. Its body differs from node to node, so nodes carry an overload.
"""

from onnx import FunctionProto, ModelProto, NodeProto, helper

from flashrib.export.operators.operator import AttentionLayer, Auxiliary, Body, Operator, Place


def standard(place: Place) -> list[str]:
    """One function per reach: a sum of `2 * reach + 1` slices of the padded input, written out."""
    functions = {}
    for node in place.nodes:
        reach = helper.get_node_attr_value(node, "reach")
        node.overload = f"reach{reach}"
        terms = "".join(
            f"  from{i} = Constant <value_ints: ints = [{i}]> ()\n"
            f"  to{i} = Add (from{i}, length)\n"
            f"  part{i} = Slice (padded, from{i}, to{i}, axis)\n"
            for i in range(2 * reach + 1)
        )
        names = ", ".join(f"part{i}" for i in range(2 * reach + 1))
        functions[reach] = (
            place.head("Neighbours <reach> (x, weights) => (y, total)")
            + "{\n"
            + "  length = Shape <start: int = -1> (x)\n"
            + "  axis = Constant <value_ints: ints = [-1]> ()\n"
            + f"  pads = Constant <value_ints: ints = [{reach}, {reach}]> ()\n"
            + "  padded = Pad (x, pads, , axis)\n"
            + terms
            + f"  summed = Sum ({names})\n"
            + "  y = Mul (summed, weights)\n"
            + "  positive = Abs (x)\n"
            + "  exact = Cast <to: int = 1> (positive)\n"
            + "  total = ReduceSum <keepdims: int = 0> (exact)\n"
            + "}"
        )
    return [_overloaded(text, f"reach{reach}") for reach, text in functions.items()]


def _overloaded(text: str, overload: str) -> FunctionProto:
    import onnx.parser

    function = onnx.parser.parse_function(text)
    function.overload = overload
    return function


def halves(place: Place) -> list[str]:
    return [
        place.head("Halves (x) => (y)") + "{\n  two = Constant <value_float: float = 2.0> ()\n  y = Div (x, two)\n}"
    ]


def layer(node: NodeProto, model: ModelProto) -> AttentionLayer:
    return AttentionLayer(node.name, f"reach {helper.get_node_attr_value(node, 'reach')}", 16, 1)


NEIGHBOURS = Operator(
    op_type="Neighbours",
    attributes=("reach",),
    bodies={"standard": Body(standard, {"": 18}), "dense": Body(standard)},
    default={"bf16": "dense"},
    auxiliary=(Auxiliary("Halves", halves),),
    float_outputs=frozenset({1}),
    layer=layer,
)
