"""Tells TensorRT about the plugin `flashrib::WindowAttention`; importing this module registers it. TensorRT 10.9 or later.

NVIDIA's framework reads the annotations below when the module is loaded, and passes attributes in the order of `describe`: see
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/tensorrt.plugin/index.html.
"""

import numpy as np
import numpy.typing as npt
import tensorrt as trt
import tensorrt.plugin as trtp

from flashrib.export.operators.window.plugin.compile import compile_kernel
from flashrib.export.operators.window.plugin.launch import launch
from flashrib.export.operators.window.plugin.layer import DTYPES, Layer, layer_of_shapes, tactics

NAME = "flashrib::WindowAttention"
_DTYPES = {trt.float16: "fp16", trt.bfloat16: "bf16"}


@trtp.register(NAME)  # type: ignore[untyped-decorator]  # TensorRT has no types
def describe(
    qkv: trtp.TensorDesc,
    pos_q: trtp.TensorDesc,
    pos_k: trtp.TensorDesc,
    window: npt.NDArray[np.int32],
    num_heads: int,
    shift: npt.NDArray[np.int32],
    capability: int,
) -> trtp.TensorDesc:
    """Shape and type of the output; inputs and attributes as in `flashrib.model.attention.window`, and the GPU's compute capability."""
    out = qkv.like()
    out.shape_expr[3] = qkv.shape_expr[3] // 3
    return out


@trtp.autotune(NAME)  # type: ignore[untyped-decorator]  # TensorRT has no types
def combinations(
    qkv: trtp.TensorDesc,
    pos_q: trtp.TensorDesc,
    pos_k: trtp.TensorDesc,
    window: npt.NDArray[np.int32],
    num_heads: int,
    shift: npt.NDArray[np.int32],
    capability: int,
    outputs: tuple[trtp.TensorDesc],
) -> list[trtp.AutoTuneCombination]:
    """All tensors of one type; tactic number i + 1 is choice i of `tactics`."""
    found = []
    for dtype in DTYPES:
        layer = _layer(qkv, pos_q, pos_k, window, num_heads, shift, dtype)
        numbers = range(1, len(tactics(layer, capability)) + 1)
        found.append(trtp.AutoTuneCombination(", ".join(4 * [dtype.upper()]), "LINEAR", list(numbers)))
    return found


@trtp.aot_impl(NAME)  # type: ignore[untyped-decorator]  # TensorRT has no types
def implementation(
    qkv: trtp.TensorDesc,
    pos_q: trtp.TensorDesc,
    pos_k: trtp.TensorDesc,
    window: npt.NDArray[np.int32],
    num_heads: int,
    shift: npt.NDArray[np.int32],
    capability: int,
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
    """Kernel, its PTX and its launch, for sizes that are known only when the engine runs."""
    layer = _layer(qkv, pos_q, pos_k, window, num_heads, shift, _DTYPES[qkv.dtype])
    blocks = tactics(layer, capability)[tactic - 1]
    kernel = compile_kernel(layer, capability, blocks)
    batch, height, width = (qkv.shape_expr[axis] for axis in range(3))
    how = launch(layer, blocks, kernel, batch, height, width, trtp.cdiv)
    return kernel.name, kernel.ptx, *how.for_tensorrt(trtp)


def _layer(
    qkv: trtp.TensorDesc,
    pos_q: trtp.TensorDesc,
    pos_k: trtp.TensorDesc,
    window: npt.NDArray[np.int32],
    num_heads: int,
    shift: npt.NDArray[np.int32],
    dtype: str,
) -> Layer:
    return layer_of_shapes(
        tuple(qkv.shape), tuple(pos_q.shape), tuple(pos_k.shape), window.tolist(), num_heads, shift.tolist(), dtype
    )
