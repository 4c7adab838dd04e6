"""Kernels of the fused passes of `flashrib.model.gpu`, whose nodes `trace.py` makes."""

from flashrib.export.onnxruntime.launch import PRECISION, Kernel, Launch, Node, Output
from flashrib.export.onnxruntime.sizes import Number, Size, ceil_div
from flashrib.export.operators.window import onnxruntime as window
from flashrib.model.gpu.pointwise_kernels import chain_kernel, fork_kernel, wide_kernel
from flashrib.model.gpu.spatial_kernels import depthwise_kernel, mix_kernel, shuffle_kernel, taps_kernel
from flashrib.model.gpu.tuning import CHUNK, mix_tile_for, strip_for, tile_for, wide_tile_for
from flashrib.model.layers import LAYER_NORM_EPS

CHAIN = ("source", "residual", "weight", "bias", "gain", "offset", "next_weight", "next_bias")
WIDE = ("source", "residual", "bias", "ahead", "gain", "offset", "next_weight", "next_bias")
FORK = ("source", "residual", "weight", "bias", "side_weight", "side_bias")
TAPS = ("sums", "squeeze_weight", "squeeze_bias", "expand_weight", "expand_bias", "picture")


def chain(node: Node, capability: int) -> Launch:
    at, width = node.attributes, node.width("source")
    tile = tile_for(width if "weight" in node.inputs else 0, at["out_width"], node.element_size("source"))
    dim_width = -(-at["dim"] // 8) * 8
    outputs = [("x_out", dim_width)] * at["keep_x"] + [("n_out", dim_width)] * at["keep_n"]
    if "next_weight" in node.inputs:
        outputs.append(("y_out", at["out_width"]))
    pixels = _pixels(node, "source")
    return Launch(
        chain_kernel,
        _maps(node, "source", outputs),
        {"pixels": pixels},
        {
            "EPS": LAYER_NORM_EPS,
            "WIDTH": width,
            "DIM": at["dim"],
            "OUT": at["out_width"],
            "GELU": bool(at["gelu"]),
            "BM": tile.pixels,
            "CHUNK": CHUNK,
            "PRECISION": PRECISION,
        },
        (ceil_div(pixels, tile.pixels),),
        tile.warps,
    )


def wide(node: Node, capability: int) -> Launch:
    at, width = node.attributes, node.width("source")
    tile = wide_tile_for(at["dim"], at["out_width"], node.element_size("source"))
    outputs = [("x_out", width)] * at["keep_x"]
    if "ahead" in node.inputs:
        outputs.append(("ahead_out", width))
    outputs += [("n_out", width)] * at["keep_n"]
    if "next_weight" in node.inputs:
        outputs.append(("y_out", at["out_width"]))
    pixels = _pixels(node, "source")
    return Launch(
        wide_kernel,
        _maps(node, "source", outputs),
        {"pixels": pixels},
        {
            "EPS": LAYER_NORM_EPS,
            "DIM": at["dim"],
            "OUT": at["out_width"],
            "BM": tile.pixels,
            "CHUNK": CHUNK,
            "STAGES": tile.stages,
            "PRECISION": PRECISION,
        },
        (ceil_div(pixels, tile.pixels),),
        tile.warps,
    )


def fork(node: Node, capability: int) -> Launch:
    dim, side, width = node.attributes["dim"], node.attributes["side"], node.width("source")
    tile = tile_for(width, 0, node.element_size("source"))
    batch, height, columns = node.sides("source")
    tiles = ceil_div(height * columns, tile.pixels)
    maps = _maps(node, "source", [("x_out", node.width("residual")), ("side_out", -(-side // 8) * 8)])
    return Launch(
        fork_kernel,
        (*maps, Output("sums", "fp32", (batch, tiles, side))),
        {"pixels": height * columns},
        {"WIDTH": width, "DIM": dim, "SIDE": side, "BM": tile.pixels, "CHUNK": CHUNK, "PRECISION": PRECISION},
        (tiles, batch),
        tile.warps,
    )


def taps(node: Node, capability: int) -> Launch:
    """Their last input, the map whose sums they are, says of how many pixels."""
    channels, inner = node.width("sums"), node.width("expand_weight")
    rows = node.inputs["expand_weight"].shape[0]
    assert rows is not None
    padded, batch = power_of_two_over(channels), node.side("sums", 0)
    return Launch(
        taps_kernel,
        (Output("taps", "fp32", (batch, 9, rows // 9)),),
        {"tiles": node.side("sums", 1), "pixels": node.side("picture", 1) * node.side("picture", 2)},
        {
            "CHANNELS": channels,
            "INNER": inner,
            "ROWS": rows,
            "P_CHANNELS": padded,
            "P_INNER": power_of_two_over(inner),
            "TILES": max(16384 // padded, 16),
            "BLOCK": 1024,
        },
        (batch,),
        16,
    )


def mix(node: Node, capability: int) -> Launch:
    side, group = node.attributes["side"], node.attributes["pixels"]
    tile = mix_tile_for(node.element_size("source"))
    batch, height, width = node.sides("source")
    return Launch(
        mix_kernel,
        _maps(node, "source", [("out", node.width("source"))]),
        {"H": height, "W": width},
        {
            "WIDTH": node.width("source"),
            "SIDE": side,
            "PIXELS": group,
            "OUT": CHUNK,
            "BM": tile.pixels,
            "BK": CHUNK,
            "PRECISION": PRECISION,
        },
        (ceil_div(ceil_div(width, group) * height, tile.pixels), batch),
        tile.warps,
    )


def depthwise(node: Node, capability: int) -> Launch:
    channels = node.width("source")
    strip = strip_for(channels)
    batch, height, width = node.sides("source")
    strips = ceil_div(height, strip.rows) * ceil_div(width, 2 * strip.pairs) * batch
    return Launch(
        depthwise_kernel,
        _maps(node, "source", [("out", channels)]),
        {"H": height, "W": width},
        {
            "WIDTH": channels,
            "FFN": bool(node.attributes["ffn"]),
            "TH": strip.rows,
            "PAIRS": strip.pairs,
            "CHUNK": strip.channels,
        },
        (strips * -(-channels // strip.channels),),
        strip.warps,
    )


def shuffle(node: Node, capability: int) -> Launch:
    scale, block = node.attributes["scale"], 512
    batch, height, width = node.sides("y")
    return Launch(
        shuffle_kernel,
        (Output("out", node.inputs["picture"].dtype, (batch, 3, height * scale, width * scale)),),
        {"H": height, "W": width},
        {"WIDTH": node.width("y"), "SCALE": scale, "BLOCK": block},
        (batch * (3 * scale) * height, ceil_div(width * scale, block)),
        4,
    )


PASSES = {
    "gpu_window_attention": window.KERNEL,
    "gpu_chain": Kernel(CHAIN, chain),
    "gpu_wide": Kernel(WIDE, wide),
    "gpu_fork": Kernel(FORK, fork),
    "gpu_taps": Kernel(TAPS, taps),
    "gpu_mix": Kernel(("source", "weight", "taps"), mix),
    "gpu_depthwise": Kernel(("source", "taps", "taps_bias"), depthwise),
    "gpu_shuffle": Kernel(("y", "bias", "picture"), shuffle),
}


def power_of_two_over(n: int) -> int:
    """Smallest power of two >= n."""
    return 1 << (n - 1).bit_length()


def _pixels(node: Node, tensor: str) -> Size:
    batch, height, width = node.sides(tensor)
    return batch * height * width


def _maps(node: Node, tensor: str, widths: list[tuple[str, int]]) -> tuple[Output, ...]:
    """Outputs, each as high and wide as an input and of its type."""
    sides: tuple[Number, ...] = node.sides(tensor)
    return tuple(Output(argument, node.inputs[tensor].dtype, (*sides, width)) for argument, width in widths)
