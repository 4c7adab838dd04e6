"""Tells TensorRT about the plugin `flashrib::DiscAttention`; importing this module registers it. TensorRT 10.9 or later.

NVIDIA's framework reads the annotations below when the module is loaded, and passes attributes in the order of `describe`: see
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/tensorrt.plugin/index.html.
"""

import tensorrt as trt
import tensorrt.plugin as trtp

from flashrib.export.operators.disc.plugin.layer import DTYPES, Layer, compile_kernel, launch, layer_of_shapes

NAME = "flashrib::DiscAttention"
_DTYPES = {trt.float16: "fp16", trt.bfloat16: "bf16"}


@trtp.register(NAME)  # type: ignore[untyped-decorator]  # TensorRT has no types
def describe(
    q: trtp.TensorDesc,
    k: trtp.TensorDesc,
    v: trtp.TensorDesc,
    starts: trtp.TensorDesc,
    full: trtp.TensorDesc,
    blocks: trtp.TensorDesc,
    text: int,
    radius: int,
    scale: float,
    height: int,
    width: int,
    pooled: int,
    capability: int,
) -> tuple[trtp.TensorDesc, trtp.TensorDesc]:
    """Shapes and types of out and lse; inputs and attributes as `prepare` leaves them, and the GPU's compute capability."""
    shape = q.shape_expr
    return q.like(), trtp.from_shape_expr((shape[0], shape[2], shape[1]), trt.float32)


@trtp.autotune(NAME)  # type: ignore[untyped-decorator]  # TensorRT has no types
def combinations(
    q: trtp.TensorDesc,
    k: trtp.TensorDesc,
    v: trtp.TensorDesc,
    starts: trtp.TensorDesc,
    full: trtp.TensorDesc,
    blocks: trtp.TensorDesc,
    text: int,
    radius: int,
    scale: float,
    height: int,
    width: int,
    pooled: int,
    capability: int,
    outputs: tuple[trtp.TensorDesc, trtp.TensorDesc],
) -> list[trtp.AutoTuneCombination]:
    """q, k, v and out of one type; the lists fix the size of blocks, so there is one tactic."""
    types = [", ".join([*3 * [dtype.upper()], *3 * ["INT32"], dtype.upper(), "FP32"]) for dtype in DTYPES]
    return [trtp.AutoTuneCombination(kinds, "LINEAR", [1]) for kinds in types]


@trtp.aot_impl(NAME)  # type: ignore[untyped-decorator]  # TensorRT has no types
def implementation(
    q: trtp.TensorDesc,
    k: trtp.TensorDesc,
    v: trtp.TensorDesc,
    starts: trtp.TensorDesc,
    full: trtp.TensorDesc,
    blocks: trtp.TensorDesc,
    text: int,
    radius: int,
    scale: float,
    height: int,
    width: int,
    pooled: int,
    capability: int,
    outputs: tuple[trtp.TensorDesc, trtp.TensorDesc],
    tactic: int,
) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
    """Kernel, its PTX and its launch, for a batch that is known only when the engine runs."""
    layer: Layer = layer_of_shapes(
        tuple(q.shape), tuple(k.shape), (height, width), text, radius, scale, pooled, _DTYPES[q.dtype]
    )
    kernel = compile_kernel(layer, capability)
    how = launch(layer, capability, kernel, q.shape_expr[0])
    return kernel.name, kernel.ptx, *how.for_tensorrt(trtp)
