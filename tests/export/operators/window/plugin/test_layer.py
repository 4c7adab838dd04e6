"""What is read from a node, and what it refuses."""

import dataclasses
from typing import Any

import pytest

from flashrib.export.operators.window.plugin.compile import compile_kernel
from flashrib.export.operators.window.plugin.layer import Layer, layer_of_shapes, tactics
from flashrib.model.attention.window.tuning import Blocks, blocks_for
from flashrib.runtime.errors import UsageError

NODE: dict[str, Any] = {
    "qkv": (1, -1, -1, 180),
    "pos_q": (6, 32, 18),
    "pos_k": (6, 32, 18),
    "window": (4, 8),
    "heads": 6,
    "shift": (2, 4),
    "dtype": "bf16",
}


def test_layer() -> None:
    layer = layer_of_shapes(**NODE)
    assert layer == Layer((4, 8), 6, 10, 18, (2, 4), "bf16")
    assert layer.tokens == 32


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"qkv": (1, -1, -1, 181)}, r"qkv \(1, -1, -1, 181\)"),
        ({"qkv": (1, -1, -1, -1)}, r"qkv \(1, -1, -1, -1\)"),
        ({"qkv": (1, -1, 180)}, r"qkv \(1, -1, 180\)"),
        ({"pos_q": (6, 32, 16)}, r"pos_q \(6, 32, 16\)"),
        ({"pos_q": (3, 32, 18), "pos_k": (3, 32, 18)}, "6 heads"),
        ({"window": (8, 8)}, "window 8x8"),
        ({"pos_q": (6, 32, -1), "pos_k": (6, 32, -1)}, r"\(heads, 32, R\)"),
        ({"dtype": "fp32"}, "fp16, bf16, not in fp32"),
    ],
    ids=str,
)
def test_nodes_that_no_layer_can_be_made_of(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        layer_of_shapes(**(NODE | wrong))


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_tactics(capability: int) -> None:
    choices = tactics(Layer((96, 96), 6, 32, 32), capability)
    tuned = blocks_for(capability, 32, 32, 9216)
    assert choices[0] == dataclasses.replace(tuned, registers=None)
    assert tuned in choices
    assert len(set(choices)) == len(choices) >= 3


def test_one_tactic_needs_no_more_shared_memory_than_every_kernel_has() -> None:
    """Nothing says whether TensorRT asks for more than 48 KB; the largest layer of the presets."""
    layer = Layer((96, 96), 6, 30, 34)
    assert min(compile_kernel(layer, 90, blocks).shared for blocks in tactics(layer, 90)) <= 48 << 10


def test_choices_that_are_alike_are_one() -> None:
    """Where the table chooses what stands beside it anyway."""
    assert tactics(Layer((16, 16), 6, 16, 16), 100) == (Blocks(128, 64, 8, 2), Blocks(64, 32, 4, 2))
