"""What the fused passes compute, as bodies in standard operators: with them a file also runs where the library is not registered.

They follow the definitions in `flashrib.model.gpu`, line by line. Inputs have the names of the kernel's arguments, outputs are `out0`, ...
"""

from collections.abc import Callable

import onnx.parser
from onnx import FunctionProto

from flashrib.export.onnxruntime.launch import Node
from flashrib.export.operators.operator import DOMAIN
from flashrib.model.layers import LAYER_NORM_EPS


class Body:
    """Lines of ONNX text, each of which names its result."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def let(self, expression: str, name: str | None = None) -> str:
        """Add `name = expression` and return the name, a new one where it is None."""
        name = name or f"t{len(self.lines)}"
        self.lines.append(f"  {name} = {expression}")
        return name

    def ints(self, *values: int) -> str:
        return self.let(f"Constant <value_ints: ints = [{', '.join(map(str, values))}]> ()")

    def cut(self, name: str, *ends: int) -> str:
        """The first `ends` rows, columns, ... of the last axes."""
        axes = range(-len(ends), 0)
        zeros, stops = self.ints(*(0 for _ in ends)), self.ints(*ends)
        return self.let(f"Slice ({name}, {zeros}, {stops}, {self.ints(*axes)})")

    def add(self, name: str, vector: str, width: int) -> str:
        """name + the first `width` values of a vector."""
        return self.let(f"Add ({name}, {self.like(self.cut(vector, width), name)})")

    def like(self, name: str, other: str) -> str:
        return self.let(f"CastLike ({name}, {other})")

    def channels_first(self, name: str) -> str:
        return self.let(f"Transpose <perm: ints = [0, 3, 1, 2]> ({name})")

    def channels_last(self, name: str) -> str:
        return self.let(f"Transpose <perm: ints = [0, 2, 3, 1]> ({name})")


def function_of(name: str, node: Node, batch: int, opset: int) -> FunctionProto:
    """The model-local function `name` that computes what `node` does.

    Args:
        name: of the function in the domain `flashrib`.
        node: what it is for.
        batch: pictures of a run.
        opset: of the model; 20 or later.
    """
    body = Body()
    outputs = BODIES[node.operator](body, node, batch)
    results = [body.let(f"Identity ({output})", f"out{index}") for index, output in enumerate(outputs)]
    text = (
        f'<opset_import: ["": {opset}, "{DOMAIN}": 1], domain: "{DOMAIN}">\n'
        f"{name} ({', '.join(node.inputs)}) => ({', '.join(results)})\n{{\n" + "\n".join(body.lines) + "\n}"
    )
    return onnx.parser.parse_function(text)


def _window_attention(body: Body, node: Node, batch: int) -> list[str]:
    at, given = node.attributes, node.inputs
    qkv = body.add("qkv", "qkv_bias", node.width("qkv")) if "qkv_bias" in given else "qkv"
    pos_k = "pos_k"
    if given["pos_k"].shape[0] != at["num_heads"]:
        pos_k = body.let(f"Expand (pos_k, {body.let('Shape (pos_q)')})")
    window, shift = (", ".join(map(str, at[name])) for name in ("window", "shift"))
    attributes = f"window: ints = [{window}], num_heads: int = {at['num_heads']}, shift: ints = [{shift}]"
    out = body.let(f"{DOMAIN}.WindowAttention <{attributes}> ({qkv}, pos_q, {pos_k})")
    out = body.like(
        out, "qkv"
    )  # no change: the checker does not know the type that ONNX Runtime's own attention returns
    if "gate" not in given:
        return [out]
    gate = body.add("gate", "gate_bias", node.width("gate")) if "gate_bias" in given else "gate"
    return [body.let(f"Mul ({out}, {body.let(f'Sigmoid ({gate})')})")]


def _norm(body: Body, x: str, dim: int, dim_width: int) -> str:
    """LayerNorm of the first `dim` channels, padded by zeros."""
    inside = body.cut(x, dim) if dim < dim_width else x
    gain, offset = (body.like(body.cut(name, dim), x) for name in ("gain", "offset"))
    n = body.let(f"LayerNormalization <axis: int = -1, epsilon: float = {LAYER_NORM_EPS}> ({inside}, {gain}, {offset})")
    if dim == dim_width:
        return n
    return body.let(f"Pad ({n}, {body.ints(0, 0, 0, 0, 0, 0, 0, dim_width - dim)})")


def _following(body: Body, n: str, dim_width: int, out_width: int, gelu: bool) -> str:
    y = body.let(f"MatMul ({n}, {body.cut('next_weight', dim_width, out_width)})")
    y = body.add(y, "next_bias", out_width)
    return body.let(f"Gelu ({y})") if gelu else y


def _chain(body: Body, node: Node, batch: int) -> list[str]:
    at, given = node.attributes, node.inputs
    dim_width = -(-at["dim"] // 8) * 8
    x = "source"
    if "weight" in given:
        x = body.let(f"MatMul (source, {body.cut('weight', node.width('source'), dim_width)})")
    x = body.add(x, "bias", dim_width)
    if "residual" in given:
        x = body.let(f"Add ({x}, residual)")
    outputs = [x] * at["keep_x"]
    if "ahead" in given:
        outputs.append(body.add(x, "ahead", dim_width))
    if "gain" in given:
        x = _norm(body, x, at["dim"], dim_width)
        outputs += [x] * at["keep_n"]
    if "next_weight" in given:
        outputs.append(_following(body, x, dim_width, at["out_width"], at.get("gelu", True)))  # `wide` has it always
    return outputs


def _fork(body: Body, node: Node, batch: int) -> list[str]:
    width, dim_width, side = node.width("source"), node.width("residual"), node.attributes["side"]
    side_width = -(-side // 8) * 8
    x = body.add(body.let(f"MatMul (source, {body.cut('weight', width, dim_width)})"), "bias", dim_width)
    product = body.let(f"MatMul (source, {body.cut('side_weight', width, side_width)})")
    product = body.add(product, "side_bias", side_width)
    exact = body.like(body.cut(product, side), "side_bias")
    sums = body.let(f"ReduceSum <keepdims: int = 0> ({exact}, {body.ints(1, 2)})")
    return [
        body.let(f"Add ({x}, residual)"),
        product,
        body.let(f"Unsqueeze ({sums}, {body.ints(1)})"),
    ]


def _taps(body: Body, node: Node, batch: int) -> list[str]:
    total = body.let(f"ReduceSum <keepdims: int = 0> (sums, {body.ints(1)})")
    sides = body.let("Shape <start: int = 1, end: int = 3> (picture)")
    pixels = body.like(body.let(f"ReduceProd <keepdims: int = 1> ({sides})"), "sums")
    mean = body.let(f"Div ({total}, {pixels})")
    turned = [body.let(f"Transpose <perm: ints = [1, 0]> ({name})") for name in ("squeeze_weight", "expand_weight")]
    inner = body.let(f"Add ({body.let(f'MatMul ({mean}, {turned[0]})')}, squeeze_bias)")
    inner = body.let(f"Gelu ({inner})")
    flat = body.let(f"Add ({body.let(f'MatMul ({inner}, {turned[1]})')}, expand_bias)")
    return [body.let(f"Reshape ({flat}, {body.ints(0, 9, -1)})")]


def _mix(body: Body, node: Node, batch: int) -> list[str]:
    side, channels = node.attributes["side"], node.width("source")
    half = body.cut("weight", side * channels, channels)
    half = body.let(f"Reshape ({half}, {body.ints(-1, side, channels, channels)})")
    half = body.let(f"Transpose <perm: ints = [3, 2, 0, 1]> ({half})")
    axis, back, start, end = body.ints(2), body.ints(-1), body.ints(side // 2), body.ints(-side)
    above = body.let(f"Slice ({half}, {start}, {end}, {axis}, {back})")
    below = body.let(f"Slice ({half}, {body.ints(1)}, {body.ints(side)}, {axis})")
    kernel = body.let(f"Concat <axis: int = 2> ({above}, {below})")
    image = body.channels_first("source")
    pad = side // 2
    still = body.let(f"Conv <pads: ints = [{pad}, {pad}, {pad}, {pad}]> ({image}, {kernel})")
    each = body.let(f"Transpose <perm: ints = [0, 2, 1]> ({body.cut('taps', channels)})")
    each = body.like(body.let(f"Reshape ({each}, {body.ints(-1, 1, 3, 3)})"), "source")
    size = body.let("Shape <start: int = 1, end: int = 3> (source)")
    shape = body.let(f"Concat <axis: int = 0> ({body.ints(1, batch * channels)}, {size})")
    images = body.let(f"Reshape ({image}, {shape})")  # one group per picture and channel
    moving = body.let(f"Conv <group: int = {batch * channels}, pads: ints = [1, 1, 1, 1]> ({images}, {each})")
    moving = body.let(f"Reshape ({moving}, {body.let(f'Shape ({still})')})")
    return [body.channels_last(body.let(f"Add ({still}, {moving})"))]


def _depthwise(body: Body, node: Node, batch: int) -> list[str]:
    channels = node.width("source")
    weight = body.let(f"Transpose <perm: ints = [1, 0]> ({body.cut('taps', channels)})")
    weight = body.like(body.let(f"Reshape ({weight}, {body.ints(channels, 1, 3, 3)})"), "source")
    bias = body.like(body.cut("taps_bias", channels), "source")
    image = body.channels_first("source")
    x = body.let(f"Conv <group: int = {channels}, pads: ints = [1, 1, 1, 1]> ({image}, {weight}, {bias})")
    x = body.channels_last(x)
    return [body.let(f"Add (source, {body.let(f'Gelu ({x})')})") if node.attributes["ffn"] else x]


def _shuffle(body: Body, node: Node, batch: int) -> list[str]:
    scale = node.attributes["scale"]
    values = body.like(body.cut("y", 3 * scale * scale), "picture")
    values = body.channels_first(body.add(values, "bias", 3 * scale * scale))
    shuffled = body.let(f'DepthToSpace <blocksize: int = {scale}, mode: string = "CRD"> ({values})')
    factors = body.let(f"Constant <value_floats: floats = [1.0, 1.0, {scale}.0, {scale}.0]> ()")
    nearest = 'mode: string = "nearest", nearest_mode: string = "floor", coordinate_transformation_mode: string = "asymmetric"'
    return [body.let(f"Add ({shuffled}, {body.let(f'Resize <{nearest}> (picture, , {factors})')})")]


BODIES: dict[str, Callable[[Body, Node, int], list[str]]] = {
    "gpu_window_attention": _window_attention,
    "gpu_chain": _chain,
    "gpu_wide": _chain,
    "gpu_fork": _fork,
    "gpu_taps": _taps,
    "gpu_mix": _mix,
    "gpu_depthwise": _depthwise,
    "gpu_shuffle": _shuffle,
}
