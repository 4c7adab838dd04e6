"""Tells TensorRT about the plugin `flashrib::OffsetAttention`; importing this module registers it. TensorRT 10.9 or later.

NVIDIA's framework reads the annotations below when the module is loaded, and passes attributes in the order of `describe`: see
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/tensorrt.plugin/index.html.
"""

import tensorrt as trt
import tensorrt.plugin as trtp

from flashrib.export.operators.offset.plugin.layer import (
    DTYPES,
    Layer,
    compile_kernel,
    launch,
    layer_of_shapes,
    tactics,
)

NAME = "flashrib::OffsetAttention"
_DTYPES = {trt.float16: "fp16", trt.bfloat16: "bf16"}


@trtp.register(NAME)  # type: ignore[untyped-decorator]  # TensorRT has no types
def describe(
    qkv: trtp.TensorDesc, offsets: trtp.TensorDesc, num_heads: int, mask_mode: int, capability: int
) -> trtp.TensorDesc:
    """Shape and type of the output; inputs and attributes as in `flashrib.model.attention.fibonacci`, and the compute capability."""
    out = qkv.like()
    out.shape_expr[2] = qkv.shape_expr[2] // 3
    return out


@trtp.autotune(NAME)  # type: ignore[untyped-decorator]  # TensorRT has no types
def combinations(
    qkv: trtp.TensorDesc,
    offsets: trtp.TensorDesc,
    num_heads: int,
    mask_mode: int,
    capability: int,
    outputs: tuple[trtp.TensorDesc],
) -> list[trtp.AutoTuneCombination]:
    """qkv and the output of one type; tactic number i + 1 is choice i of `tactics`."""
    found = []
    for dtype in DTYPES:
        numbers = range(1, len(tactics(_layer(qkv, offsets, num_heads, mask_mode, dtype))) + 1)
        found.append(trtp.AutoTuneCombination(f"{dtype.upper()}, INT32, {dtype.upper()}", "LINEAR", list(numbers)))
    return found


@trtp.aot_impl(NAME)  # type: ignore[untyped-decorator]  # TensorRT has no types
def implementation(
    qkv: trtp.TensorDesc,
    offsets: trtp.TensorDesc,
    num_heads: int,
    mask_mode: int,
    capability: int,
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
    """Kernel, its PTX and its launch, for a batch that is known only when the engine runs."""
    layer = _layer(qkv, offsets, num_heads, mask_mode, _DTYPES[qkv.dtype])
    tiles = tactics(layer)[tactic - 1]
    kernel = compile_kernel(layer, capability, tiles)
    how = launch(layer, tiles, kernel, qkv.shape_expr[0], qkv.shape_expr[1], trtp.cdiv)
    return kernel.name, kernel.ptx, *how.for_tensorrt(trtp)


def _layer(qkv: trtp.TensorDesc, offsets: trtp.TensorDesc, num_heads: int, mask_mode: int, dtype: str) -> Layer:
    return layer_of_shapes(tuple(qkv.shape), tuple(offsets.shape), num_heads, mask_mode, dtype)
