"""`window_attention` and its constants as single nodes of an ONNX graph; only used while a network is exported.

The nodes `flashrib::WindowAttention` and `flashrib::PositionCodes` carry what is fixed about the layer as attributes; their bodies,
model-local functions, are attached by `flashrib.export`.
"""

import torch
from torch import Tensor

from flashrib.model.attention.window.extras import gated
from flashrib.model.config import Window


def window_attention_symbolic(
    qkv: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    window: Window,
    num_heads: int,
    shift: Window,
    *,
    qkv_bias: Tensor | None = None,
    gate: Tensor | None = None,
    gate_bias: Tensor | None = None,
) -> Tensor:
    """See `flashrib.model.attention.window.window_attention`.

    Where q, k and v come without their bias, it is the network for GPUs that is exported: a node `flashrib::gpu_window_attention` then does
    what the kernel does, bias and gate included.
    """
    if qkv_bias is not None:
        return torch.onnx.ops.symbolic(
            "flashrib::gpu_window_attention",
            (qkv, pos_q, pos_k, gate, qkv_bias, gate_bias),
            attrs={"window": list(window), "num_heads": num_heads, "shift": list(shift)},
            dtype=qkv.dtype,
            shape=(*qkv.shape[:-1], qkv.shape[-1] // 3),
            version=1,
        )
    out = torch.onnx.ops.symbolic(
        "flashrib::WindowAttention",
        (qkv, pos_q, pos_k),
        attrs={"window": list(window), "num_heads": num_heads, "shift": list(shift)},
        dtype=qkv.dtype,
        shape=(*qkv.shape[:-1], qkv.shape[-1] // 3),
        version=1,
    )
    return gated(out, gate, gate_bias)


def position_codes_symbolic(rows: Tensor, columns: Tensor, to_q: Tensor, to_k: Tensor) -> tuple[Tensor, Tensor]:
    """See `flashrib.model.rib.position_codes`."""
    heads, _, rank = to_q.shape
    shape = (heads, rows.shape[0] * columns.shape[0], rank)
    pos_q, pos_k = torch.onnx.ops.symbolic_multi_out(
        "flashrib::PositionCodes",
        (rows, columns, to_q, to_k),
        dtypes=(rows.dtype, rows.dtype),
        shapes=(shape, shape),
        version=1,
    )
    return pos_q, pos_k
