"""How long work says how far it is."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with what is done and with all there is to do, both in one unit that the docstring names."""

PhaseProgress = Callable[[float, str], None]
"""Called with the part that is done, 0..1, and with the name of the current phase."""
