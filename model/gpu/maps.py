"""`Maps`: feature maps on their way from one pass to the next."""

from collections.abc import Iterator

from torch import Tensor


class Maps:
    """Feature maps by name. Whoever needs one for the last time takes it out, so that its memory is free as soon as it has been read.

    The names that passes use:
        source: what a pass works on.
        residual: what a pass adds.
        x: the sum, a residual of later passes.
        started: x plus a vector, see `Begin.start`.
        n: LayerNorm of x.
        y: what a pass makes for the one after it, such as qkv.
    """

    def __init__(self, **maps: Tensor) -> None:
        self._maps = maps

    def take(self, name: str) -> Tensor:
        """Remove a map and return it."""
        return self._maps.pop(name)

    def find(self, name: str) -> Tensor | None:
        """Remove a map and return it, or None if there is none of that name."""
        return self._maps.pop(name, None)

    def look(self, name: str) -> Tensor | None:
        """Return a map that stays, or None if there is none of that name."""
        return self._maps.get(name)

    def put(self, name: str, value: Tensor) -> None:
        """Add a map."""
        self._maps[name] = value

    def rename(self, name: str, new: str) -> None:
        """Give a map another name, in place of the map that has it; nothing happens if there is no map of that name."""
        if name in self._maps:
            self._maps[new] = self._maps.pop(name)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._maps.values())
