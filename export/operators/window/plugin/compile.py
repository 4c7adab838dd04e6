"""The window attention's Triton kernel -> PTX that TensorRT launches."""

import functools

from flashrib.export.operators.plugin.ptx import Kernel, compile_ptx
from flashrib.export.operators.window.plugin.layer import Layer
from flashrib.model.attention.window.kernel import window_attention_kernel
from flashrib.model.attention.window.tuning import Blocks, power_of_two, repeat_stages


@functools.cache
def compile_kernel(layer: Layer, capability: int, blocks: Blocks) -> Kernel:
    """Compile the attention of a layer for a compute capability; no GPU is needed.

    The kernel pads to whole windows by a single reflection, as the bodies in an ONNX file do: no side of the feature map may be shorter
    than the model's minimum. Tensors are contiguous and aligned to 16 bytes; parameters: qkv, pos_q, pos_k, H, W, out.

    Args:
        layer: what is computed.
        capability: compute capability, 10 * major + minor; see `compile_ptx`.
        blocks: how a window is cut.

    Raises:
        FlashribError: see `compile_ptx`.
    """
    tensor = f"*{layer.dtype}"
    return compile_ptx(
        window_attention_kernel,
        {"qkv": tensor, "pos_q": tensor, "pos_k": tensor, "H": "i32", "W": "i32", "out": tensor},
        {
            **dict.fromkeys(("gate", "qkv_bias", "gate_bias", "lse")),
            "HEADS": layer.heads,
            "D": layer.head_dim,
            "R": layer.rank,
            "WH": layer.window[0],
            "WW": layer.window[1],
            "SHIFT_H": layer.shift[0],
            "SHIFT_W": layer.shift[1],
            "DP": power_of_two(layer.head_dim),
            "RP": power_of_two(layer.rank),
            "BM": blocks.queries,
            "BN": blocks.keys,
            "STAGES": blocks.stages,
            "REPEAT_STAGES": repeat_stages(capability),
            "TINY": False,
            "SHARED": False,
            "PRECISION": "ieee",
        },
        capability,
        warps=blocks.warps,
        registers=blocks.registers,
        what=f"the attention plugin (window {layer.window[0]}x{layer.window[1]}, sm_{capability})",
    )
