"""Graph passes: each is one function in one file that changes a model in place and leaves what it computes as it is.

`PASSES` lists them in the order in which they run.
"""

from collections.abc import Callable

from onnx import ModelProto

from flashrib.export.passes.fold_gather import fold_gather
from flashrib.export.passes.remove_unused import remove_unused
from flashrib.export.passes.share_constants import share_constants

PASSES: tuple[Callable[[ModelProto], None], ...] = (fold_gather, share_constants, remove_unused)


def run_passes(model: ModelProto) -> None:
    """Run all passes once, in place."""
    for rule in PASSES:
        rule(model)
