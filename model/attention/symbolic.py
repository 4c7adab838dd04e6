"""`window_attention` as one node of an ONNX graph, `flashrib::WindowAttention`; only used while a network is exported.

The node carries what is fixed about the layer as attributes; its body, a model-local function, is attached by `flashrib.export`.
"""

import torch.onnx.ops
from torch import Tensor

from flashrib.model.config import Window


def window_attention_symbolic(
    qkv: Tensor, pos_q: Tensor, pos_k: Tensor, window: Window, num_heads: int, shift: Window
) -> Tensor:
    """See `flashrib.model.attention.window_attention`."""
    return torch.onnx.ops.symbolic(
        "flashrib::WindowAttention",
        (qkv, pos_q, pos_k),
        attrs={"window": list(window), "num_heads": num_heads, "shift": list(shift)},
        dtype=qkv.dtype,
        shape=(*qkv.shape[:-1], qkv.shape[-1] // 3),
        version=1,
    )
