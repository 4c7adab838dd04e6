"""The operators. A row is all that `export` knows about one of them; nothing else names an operator.

A package from outside adds its own: `OPERATORS[row.op_type] = row` before it exports.
"""

from flashrib.export.operators.disc.row import DISC_ATTENTION
from flashrib.export.operators.offset.row import OFFSET_ATTENTION
from flashrib.export.operators.operator import Auxiliary, Operator
from flashrib.export.operators.window.row import WINDOW_ATTENTION

OPERATORS: dict[str, Operator] = {row.op_type: row for row in (WINDOW_ATTENTION, OFFSET_ATTENTION, DISC_ATTENTION)}


def body_names() -> tuple[str, ...]:
    """Names of all bodies of all operators."""
    return tuple(dict.fromkeys(name for row in OPERATORS.values() for name in row.bodies))


def auxiliaries() -> dict[str, Auxiliary]:
    """The auxiliary functions of all operators by name."""
    return {function.op_type: function for row in OPERATORS.values() for function in row.auxiliary}


def opset_of_body(name: str | None) -> int:
    """Least ONNX opset of the bodies of this name; 1 where they take any, or none is named."""
    bodies = [row.bodies.get(name) for row in OPERATORS.values() if name is not None]
    return min((body.opsets.get("", 1) for body in bodies if body is not None), default=1)
