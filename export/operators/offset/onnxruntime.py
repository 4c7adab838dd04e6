"""The kernels of the offset attention for ONNX Runtime; see `flashrib.export.onnxruntime.launch`."""

from typing import Any

from flashrib.export.onnxruntime.launch import Kernel, Launch, Node, Output
from flashrib.model.attention.fibonacci.kernel import class_parts_kernel, merge_kernel, offset_attention_kernel
from flashrib.model.attention.fibonacci.tuning import (
    CLASS_BLOCK,
    CLASS_KEYS,
    CLASS_STAGES,
    CLASS_WARPS,
    MERGE_BLOCK,
    MERGE_WARPS,
    plan_of,
    power_of_two,
    span_of,
)
from flashrib.runtime.errors import UsageError


def offset_attention(node: Node, capability: int) -> tuple[Launch, ...]:
    """As `flashrib.model.attention.fibonacci.op` launches it; the number of tokens is fixed, since the offsets belong to it."""
    qkv, heads, zero_logit = node.inputs["qkv"], node.attributes["num_heads"], node.attributes["mask_mode"] == 1
    channels, listed, tokens = node.width("qkv"), node.width("offsets"), qkv.shape[1]
    if tokens is None:
        raise UsageError("offset attention: a library is for one size of picture: export the model with --tile HxW")
    head_dim = channels // (3 * heads)
    padded, batch = power_of_two(head_dim), node.side("qkv", 0)
    plan = plan_of(tokens, head_dim, zero_logit, node.element_size("qkv"))
    outputs = [Output("out", qkv.dtype, (batch, tokens, channels // 3))]
    if plan.first != "whole":
        outputs.append(Output("parts", "fp32", (batch, heads, plan.parts, 2 + padded)))
    if plan.first == "none":
        outputs.append(Output("part_sums", "fp32", (batch, heads, plan.parts, padded)))
        outputs.append(Output("sums", "fp32", (batch, channels // 3)))

    def launch(kernel: Any, integers: dict[str, int], programs: int, warps: int, **constants: Any) -> Launch:
        widths = {"HEADS": heads, "D": head_dim, "DP": padded}
        return Launch(kernel, tuple(outputs), integers, widths | constants, (batch * (heads * programs),), warps)

    parts = launch(
        class_parts_kernel,
        {"tokens": tokens},
        plan.parts,
        CLASS_WARPS,
        BN=CLASS_BLOCK,
        STAGES=CLASS_STAGES,
        KEYS=CLASS_KEYS,
    )
    merge = launch(merge_kernel, {"tokens": tokens, "count": plan.parts}, 1, MERGE_WARPS, BN=MERGE_BLOCK)
    patches = launch(
        offset_attention_kernel,
        {"tokens": tokens, "span": span_of(plan.tiles)},
        plan.chunks,
        plan.tiles.warps,
        M=listed,
        MP=power_of_two(listed, 1),
        BM=plan.tiles.queries,
        ZERO=zero_logit,
        FIRST=plan.first,
        PACKED=node.element_size("qkv") == 2,
    )
    return {"whole": (patches,), "part": (patches, merge), "none": (parts, merge, patches)}[plan.first]


KERNEL = Kernel(("qkv", "offsets"), offset_attention, constant=("qkv",))
