"""Arithmetic on dimensions that are known only when a model runs, in the notation of `library.cpp`."""

import operator
from collections.abc import Callable, Sequence
from typing import Union

_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
    "^": lambda a, b: -(-a // b),
}

Number = Union[int, "Size"]


class Size:
    """An expression of the dimensions of a node's inputs, such as the number of pixels of a map.

    Attributes:
        tokens: in postfix notation: integers, "I.J" for dimension J of input I, and + - * / (rounded down) ^ (rounded up).
    """

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self.tokens = tokens

    @classmethod
    def of(cls, value: Number) -> "Size":
        return value if isinstance(value, Size) else cls((str(value),))

    @classmethod
    def dimension(cls, tensor: int, axis: int) -> "Size":
        """Dimension `axis` of input `tensor`."""
        return cls((f"{tensor}.{axis}",))

    def __add__(self, other: Number) -> "Size":
        return self._with(other, "+")

    def __sub__(self, other: Number) -> "Size":
        return self._with(other, "-")

    def __mul__(self, other: Number) -> "Size":
        return self._with(other, "*")

    __rmul__ = __mul__

    def __floordiv__(self, other: Number) -> "Size":
        return self._with(other, "/")

    def __str__(self) -> str:
        return ",".join(self.tokens)

    def _with(self, other: Number, operation: str) -> "Size":
        return Size((*self.tokens, *Size.of(other).tokens, operation))

    def evaluate(self, shapes: Sequence[Sequence[int]]) -> int:
        """The number for inputs of these shapes."""
        stack: list[int] = []
        for token in self.tokens:
            if token in _OPERATIONS:
                b = stack.pop()
                stack.append(_OPERATIONS[token](stack.pop(), b))
            elif "." in token:
                tensor, axis = token.split(".")
                stack.append(shapes[int(tensor)][int(axis)])
            else:
                stack.append(int(token))
        return stack[0]


def ceil_div(a: Number, b: int) -> Size:
    """a / b, rounded up."""
    return Size.of(a)._with(b, "^")
