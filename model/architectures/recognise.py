"""What a checkpoint is: the architecture from its keys, then whatever that architecture reads from keys and shapes."""

import dataclasses

from flashrib.model.architectures.architecture import Architecture, Recognised
from flashrib.model.architectures.registry import ARCHITECTURES
from flashrib.model.state_dict import Checkpoint, first_ten
from flashrib.model.wrapped import places, readings
from flashrib.runtime.errors import CheckpointError


def recognise(checkpoint: Checkpoint) -> Recognised:
    """Find the architecture of a checkpoint, and check that every key and shape belongs to it.

    Raises:
        CheckpointError: keys of no known architecture, missing, unexpected or misshapen keys.
    """
    row, unwrapped = identify(checkpoint)
    return row.recognise(unwrapped)


def identify(checkpoint: Checkpoint) -> tuple[Architecture, Checkpoint]:
    """Find the architecture of a checkpoint from a key or two, and the checkpoint with that architecture's keys.

    Raises:
        CheckpointError: keys of no known architecture.
    """
    keys = checkpoint.state_dict
    for state_dict in readings(keys):
        for row in ARCHITECTURES.values():
            if row.matches(state_dict):
                return row, dataclasses.replace(checkpoint, state_dict=state_dict)
    found = places(keys)
    advice = (
        f"; if they are below one of these names, pass it with --key: {', '.join(found)}" if 0 < len(found) <= 6 else ""
    )
    known = ", ".join(row.title.partition(" ")[2] for row in ARCHITECTURES.values())
    raise CheckpointError(
        f"{checkpoint.path}: keys of no architecture that flashrib knows ({known}):"
        f" {first_ten([repr(key) for key in keys])}{advice}"
    )
