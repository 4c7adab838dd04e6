"""Public names of a package that are loaded when they are first used, so that importing the package costs nothing and needs nothing."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: dict[str, Any], homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package.

    Args:
        package: its `globals()`.
        homes: public name -> module that has it, relative to the package.
    """
    name = package["__name__"]

    def load(attribute: str) -> Any:
        if attribute not in homes:
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        value = package[attribute] = getattr(import_module(f"{name}.{homes[attribute]}"), attribute)
        return value

    return load, lambda: sorted({*package, *homes})
