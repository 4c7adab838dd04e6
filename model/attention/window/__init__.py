"""The one operator that knows windows, `window_attention`, and its forms side by side.

`reference.py` is the definition; `sdpa.py` is the form for every device that PyTorch's fused attention runs on, `op.py` our kernels
for CUDA GPUs, `flash.py` the `flash-attn` package, `symbolic.py` a node of an ONNX graph. A form is a row of `forms.FORMS`; networks
never choose one themselves.
"""

from torch import Tensor

from flashrib.model.attention.window.forms import FORMS, automatic_form, form_named, not_supported_reasons
from flashrib.model.config import Window
from flashrib.runtime.errors import UsageError

__all__ = ["FORMS", "automatic_form", "not_supported_reasons", "window_attention"]


def window_attention(
    qkv: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    window: Window,
    num_heads: int,
    shift: Window = (0, 0),
    *,
    qkv_bias: Tensor | None = None,
    gate: Tensor | None = None,
    gate_bias: Tensor | None = None,
    form: str | None = None,
) -> Tensor:
    """Attention within the windows of a feature map, with a low-rank position bias.

    logits = <q, k> + <pos_q, pos_k>, softmax over the tokens of a window, no further scale: D^-1/2 and R^-1/2 belong into the
    weights and constants. The map is padded to whole windows by reflection at bottom and right inside the operator.

    Args:
        qkv: (B, H, W, 3*heads*D), channels last, channel = s*heads*D + head*D + d with s = 0, 1, 2 for q, k, v; any H and W.
        pos_q: (heads, N, R), N = Wh*Ww, tokens row-major.
        pos_k: (heads, N, R), or (1, N, R) where all heads share it.
        window: (Wh, Ww) in pixels.
        num_heads: heads.
        shift: rows and columns that the padded map is rolled by before it is cut into windows (no mask), and back after.
        qkv_bias: (3*heads*D), added to `qkv`; libraries multiply faster without a bias. That of k changes no result and may be left out.
        gate: (B, H, W, heads*D), the result is multiplied by its sigmoid; None leaves it.
        gate_bias: (heads*D), added to `gate`.
        form: a key of `FORMS`; None takes `automatic_form`. `not_supported_reasons` says why one is not taken.

    Returns:
        (B, H, W, heads*D), same dtype as `qkv`.

    Raises:
        UsageError: no such form, or shapes that do not belong together.
    """
    tokens = window[0] * window[1]
    codes = (num_heads, tokens, pos_q.shape[-1])
    if qkv.shape[-1] % (3 * num_heads) or pos_q.shape != codes or pos_k.shape not in (codes, (1, *codes[1:])):
        raise UsageError(
            f"shapes do not belong together: qkv {tuple(qkv.shape)}, pos_q {tuple(pos_q.shape)}, pos_k {tuple(pos_k.shape)},"
            f" window {window}, {num_heads} heads; expected (B, H, W, 3*heads*D) and twice (heads, {tokens}, R)"
        )
    function = form_named(form or automatic_form(qkv)).function
    return function(qkv, pos_q, pos_k, window, num_heads, shift, qkv_bias=qkv_bias, gate=gate, gate_bias=gate_bias)
