"""Registers operators with PyTorch that `torch.compile` sees through, without loading the compiler.

PyTorch 2.11 to 2.13 load it where such an operator is registered, to look for its kernels for the keys of the compiler's caches, and
again where one is first called; it takes longer to load than PyTorch itself. Here the search waits until somebody asks for the kernels,
and where nobody compiles, differentiates or traces, a call goes to the function and not by way of PyTorch.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch


class _Kernels:
    """The kernels in a function, found when they are first asked for."""

    def __init__(self, find: Callable[[Any], list[Any]], function: Callable[..., Any]) -> None:
        self._find, self._function = find, function
        self._found: list[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._found is None:
            self._found = self._find(self._function)
        return iter(self._found)


def triton_op(name: str, mutates_args: Iterable[str] = ()) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function that launches Triton kernels: see `torch.library.triton_op`.

    Args:
        name: "flashrib::depthwise3x3".
        mutates_args: arguments that it changes.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        operator = _registered(name, function, mutates_args)

        # Operators with a kernel of their own for a device go by way of PyTorch, which chooses.
        others: list[str] = []

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            direct = _is_plain() and not (others and arguments[0].device.type in others)
            return (function if direct else operator)(*arguments, **named)

        def register_kernel(device: str) -> Any:
            others.append(device)
            return operator.register_kernel(device)

        parts: Any = call
        parts._opoverload, parts.register_kernel = (
            operator._opoverload,
            register_kernel,
        )  # as what torch.library returns has them
        return call

    return decorate


def wrap_triton(kernel: Any) -> Any:
    """Return `kernel` in the form in which a function of `triton_op` launches it: `kernel[grid](...)`."""
    return kernel if _is_plain() else torch.library.wrap_triton(kernel)


def _is_plain() -> bool:
    """Whether nobody compiles, differentiates or looks at what operators are called."""
    compiles: Any = torch.compiler.is_compiling  # first: the compiler knows its answer and reads no further
    return not compiles() and not torch.is_grad_enabled() and not torch._C._len_torch_dispatch_stack()


def _registered(name: str, function: Callable[..., Any], mutates_args: Iterable[str]) -> Any:
    library: Any = torch._library.triton
    find = getattr(library, "get_inner_triton_kernels", None)
    if find is None:
        return torch.library.triton_op(name, function, mutates_args=mutates_args)
    library.get_inner_triton_kernels = lambda searched: _Kernels(find, searched)
    try:
        return torch.library.triton_op(name, function, mutates_args=mutates_args)
    finally:
        library.get_inner_triton_kernels = find
