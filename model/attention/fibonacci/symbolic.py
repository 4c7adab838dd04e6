"""`offset_attention` as a single node of an ONNX graph; only used while a network is exported.

The node `flashrib::OffsetAttention` carries heads and mask as attributes, its offsets are an input, a constant of the file; its body, a
model-local function, is attached by `flashrib.export`.
"""

import torch
from torch import Tensor

MASK_MODES = ("neg_inf", "zero_logit")  # as the node's attribute mask_mode counts them


def offset_attention_symbolic(qkv: Tensor, offsets: Tensor, num_heads: int, mask_mode: str) -> Tensor:
    """See `flashrib.model.attention.fibonacci.offset_attention`; `mask_mode` not "dense"."""
    return torch.onnx.ops.symbolic(
        "flashrib::OffsetAttention",
        (qkv, offsets),
        attrs={"num_heads": num_heads, "mask_mode": MASK_MODES.index(mask_mode)},
        dtype=qkv.dtype,
        shape=(*qkv.shape[:-1], qkv.shape[-1] // 3),
        version=1,
    )
