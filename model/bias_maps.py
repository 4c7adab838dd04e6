"""Pictures of the position bias that the window attentions of a network have learned."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flashrib.model.layers import WindowAttention

SIDE = 192  # pixels of a map's longer side, at least
GAP = 8  # white pixels between maps
HIGH, MIDDLE, LOW = (178, 59, 31), (245, 245, 245), (31, 111, 178)


def pictures(network: nn.Module) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield for every window attention a file name and a picture (H, W, 3): the bias of each head, heads side by side.

    A map shows the bias between the token in the middle of a window and every token of it, row by row: red above the map's mean, blue
    below, white at it; the strongest of each head has the full colour.
    """
    for name, module in network.named_modules():
        if isinstance(module, WindowAttention):
            with torch.no_grad():
                yield f"{name}.png", picture(bias_of_the_middle(module))


def bias_of_the_middle(attention: WindowAttention) -> Tensor:
    """Bias between the token in the middle of a window, at row Wh // 2 and column Ww // 2, and all tokens: (heads, Wh, Ww), float64."""
    rows, columns = attention.config.window
    pos_q, pos_k = (codes.double() for codes in attention.position_codes())
    middle = rows // 2 * columns + columns // 2
    bias = pos_q[:, middle : middle + 1] @ pos_k.mT  # (heads, 1, N)
    return bias.view(-1, rows, columns)


def picture(bias: Tensor) -> NDArray[np.uint8]:
    """Draw the maps (heads, Wh, Ww) side by side."""
    centred = (bias - bias.mean((1, 2), keepdim=True)).numpy()
    largest = np.abs(centred).max(axis=(1, 2), keepdims=True)
    share = np.divide(centred, largest, out=np.zeros_like(centred), where=largest > 0)[..., None]
    ends = np.where(share > 0, np.array(HIGH), np.array(LOW))
    colours = np.rint(np.array(MIDDLE) + np.abs(share) * (ends - np.array(MIDDLE))).astype(np.uint8)
    zoom = max(1, -(-SIDE // max(colours.shape[1:3])))
    large = colours.repeat(zoom, axis=1).repeat(zoom, axis=2)
    return np.concatenate([np.pad(one, ((GAP,) * 2, (GAP,) * 2, (0, 0)), constant_values=255) for one in large], axis=1)
