"""Damaged model files of every kind end in one of our errors: none is run by halves, none is a bug. More of them by hand:

FLASHRIB_FUZZ=100000 pytest tests/runtime/test_fuzz_models.py
"""

import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from flashrib.export.save import save_onnx
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.errors import FlashribError
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.sessions.table import describe_model
from tests.model.networks import small_network
from tests.runtime.artifacts.test_onnx_weights import model
from tests.runtime.models import write_checkpoint
from tests.runtime.sessions.engines import write_engine

COUNT = int(os.environ.get("FLASHRIB_FUZZ", "200"))


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, set, cut out or put in, or the end cut off; more often at the beginning, where the structure is."""
    result = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(len(result))
        at = min(at, rng.randrange(400)) if rng.random() < 0.5 else at
        match rng.randrange(6):
            case 0:
                result[at] ^= 1 << rng.randrange(8)
            case 1:
                result[at] = rng.choice([0, 1, 127, 128, 255])
            case 2:
                del result[at : at + rng.randrange(1, 50)]
            case 3:
                result[at:at] = rng.randbytes(rng.randrange(1, 20))
            case 4:
                del result[max(1, at) :]
            case 5:
                result[at : at + 4] = b"\xff\xff\xff\x7f"
        if not result:
            result = bytearray(b"x")
    return bytes(result)


def write(kind: str, path: Path) -> Path:
    """A whole file; returns what is damaged of it."""
    if kind == "onnx":
        save_onnx(model(), path)
    elif kind == "safetensors":
        write_checkpoint(path)
    elif kind == "pth":
        torch.save({"params": small_network().state_dict()}, path)
    else:
        return manifest_path(write_engine(path))
    return path


@pytest.mark.parametrize("kind", ["onnx", "safetensors", "pth", "engine"])
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"m.{kind}"
    part = write(kind, path)
    content, rng, seen = part.read_bytes(), random.Random(0), Counter[str]()
    for _ in range(COUNT):
        part.write_bytes(damaged(content, rng))
        try:
            describe_model(path)
            if kind != "engine":  # which nothing here could run
                with SessionSpec(path, device="cpu", threads=1).open() as session:
                    assert session.run(np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 3, 16, 16)
            seen["taken"] += 1
        except FlashribError as error:
            seen["refused" if "\n" not in str(error) else "said in several lines"] += 1
    assert seen["said in several lines"] == 0
    assert seen["refused"] > 0.9 * COUNT
    part.write_bytes(content)
    describe_model(path)
