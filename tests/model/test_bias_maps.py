"""Pictures of the bias show what the definition adds to the scores."""

import numpy as np
import torch

from flashrib.model.attention.window import window_attention
from flashrib.model.bias_maps import GAP, HIGH, LOW, MIDDLE, bias_of_the_middle, picture, pictures
from flashrib.model.layers import WindowAttention
from tests.model.networks import small_network


def test_the_bias_is_the_one_that_attention_adds() -> None:
    """With q and k zero the scores are the bias alone: attention with one-hot values reads the softmax of it."""
    network = small_network().double()
    layer = next(m for m in network.modules() if isinstance(m, WindowAttention))
    rows, columns = layer.config.window
    heads, tokens = layer.config.heads, rows * columns
    bias = bias_of_the_middle(layer)
    assert bias.shape == (heads, rows, columns)
    qkv = torch.zeros(1, rows, columns, 3, heads, tokens, dtype=torch.float64)
    qkv[0, :, :, 2] = torch.eye(tokens, dtype=torch.float64).view(rows, columns, 1, tokens)
    weights = window_attention(qkv.flatten(3), *layer.position_codes(), (rows, columns), heads)
    middle = weights.view(rows, columns, heads, tokens)[rows // 2, columns // 2]
    assert torch.allclose(middle, bias.flatten(1).softmax(1), atol=1e-12)


def test_colours() -> None:
    bias = torch.tensor([[[3.0, -1.0], [-1.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    drawn = picture(bias)
    side = drawn.shape[0] - 2 * GAP
    assert drawn.shape == (side + 2 * GAP, 2 * (side + 2 * GAP), 3)
    assert tuple(drawn[GAP, GAP]) == HIGH
    share = 1 / 3
    expected = np.rint(np.array(MIDDLE) + share * (np.array(LOW) - np.array(MIDDLE)))
    assert tuple(drawn[GAP + side - 1, GAP]) == tuple(expected)
    assert tuple(drawn[GAP + 1, side + 3 * GAP + 1]) == MIDDLE  # no bias at all
    assert (drawn[0] == 255).all()


def test_one_picture_for_each_attention() -> None:
    names = [name for name, _ in pictures(small_network())]
    assert names == ["body.0.0.attn.png", "body.0.1.attn.png"]
