"""A small network of every architecture, by its name, for tests of what holds for all of them."""

from collections.abc import Callable

from flashrib.model.architectures.registry import network_from_config, preset
from flashrib.model.network import Network
from tests.model.architectures.clear_dit.cases import network as clear_network
from tests.model.architectures.clear_dit.cases import tiny
from tests.model.networks import SMALL_ESC, small_network
from tests.runtime.models import SMALL_REAL

EVERY: dict[str, Callable[[], Network]] = {
    "sst": small_network,
    "esc-rib": lambda: small_network(SMALL_ESC),
    "sst-real": lambda: small_network(SMALL_REAL),
    "fibottention": lambda: network_from_config(preset("fibottention-tiny-16")).eval(),
    "clear": lambda: clear_network(tiny(3, 4)),
}
