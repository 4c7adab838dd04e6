"""The kernel of window attention for ONNX Runtime; see `flashrib.export.onnxruntime.launch`."""

from flashrib.export.onnxruntime.launch import PRECISION, Kernel, Launch, Node, Output
from flashrib.export.onnxruntime.sizes import ceil_div
from flashrib.model.attention.window.kernel import window_attention_kernel
from flashrib.model.attention.window.tuning import blocks_for, power_of_two, programs, repeat_stages


def window_attention(node: Node, capability: int) -> Launch:
    """As `flashrib.model.attention.window.op` launches it, but that a single reflection pads the map, as in all bodies of ONNX files."""
    heads, (rows, columns) = node.attributes["num_heads"], node.attributes["window"]
    channels, rank, tokens = node.width("qkv"), node.width("pos_q"), rows * columns
    head_dim = channels // (3 * heads)
    blocks = blocks_for(capability, head_dim, rank, tokens, node.element_size("qkv"))
    batch, height, width = node.sides("qkv")
    windows = ceil_div(height, rows) * ceil_div(width, columns) * batch
    down, right = node.attributes["shift"]
    return Launch(
        window_attention_kernel,
        (Output("out", node.inputs["qkv"].dtype, (batch, height, width, channels // 3)),),
        {"H": height, "W": width},
        {
            "HEADS": heads,
            "D": head_dim,
            "R": rank,
            "WH": rows,
            "WW": columns,
            "SHIFT_H": down,
            "SHIFT_W": right,
            "DP": power_of_two(head_dim),
            "RP": power_of_two(rank),
            "BM": blocks.queries,
            "BN": blocks.keys,
            "STAGES": blocks.stages,
            "REPEAT_STAGES": repeat_stages(capability),
            "TINY": False,
            "SHARED": node.inputs["pos_k"].shape[0] != heads,
            "PRECISION": PRECISION,
        },
        (programs(windows, heads, tokens, blocks),),
        blocks.warps,
        blocks.registers,
    )


KERNEL = Kernel(
    ("qkv", "pos_q", "pos_k", "gate", "qkv_bias", "gate_bias"), window_attention, constant=("pos_q", "pos_k")
)
