"""Is the attention of every window layer fused?

A fused layer keeps its N x N scores on the chip. An unfused one writes them to memory, N / D times a feature map;
nothing in TensorRT says so. Two signs, each sufficient:

* a layer of the engine reads or writes a tensor of the scores' size that has N twice among its sides;
* the engine needs more than 40 feature maps (pixels x dim x 2 bytes) of scratch memory, 80 where its size is dynamic. Measured:
  fused networks need up to 25 (62 where the size is dynamic: the builder then plans less tightly); the scores of a
  single unfused layer of window 64, N heads / dim of them, make 256 more. Small windows stay below it, which is what the first sign is for.
"""

import math
from collections.abc import Mapping, Sequence

from flashrib.export.engine.log import Dimensions, EngineLayer
from flashrib.export.engine.source import WindowLayer
from flashrib.runtime.engine_manifest import Side
from flashrib.runtime.errors import ModelError

MOST_MAPS = 40
MOST_MAPS_DYNAMIC = 80
ALWAYS_ALLOWED = 32 << 20  # bytes that say nothing: measured, up to 20 MB of it do not grow with the size


def check_fused(
    what: str,
    windows: Sequence[WindowLayer],
    layers: Sequence[EngineLayer],
    scratch: int | None,
    scratch_of: Mapping[str, int],
    size: Side,
    dim: int,
    batch: int = 1,
    dynamic: bool = False,
) -> None:
    """Refuse an engine in which the attention of a layer is not fused.

    Args:
        what: name of the model, for the error message.
        windows: attention layers of the model.
        layers: layers of the engine, as far as known.
        scratch: bytes of scratch memory of the engine, as reported by the builder.
        scratch_of: the same by layer.
        size: largest (H, W) of the input in pixels.
        dim: channels of the feature map.
        batch: pictures of one run.
        dynamic: True where the engine takes smaller sizes as well.

    Raises:
        ModelError: some attention is not fused, or nothing shows that it is.
    """
    found = [(window, layer) for window in windows if (layer := _layer_with_scores(window, layers, size, batch))]
    if found:
        named = ", ".join(f"{window.name} (window {window.window[0]}x{window.window[1]})" for window, _ in found[:4])
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise ModelError(
            f"{what}: attention is not fused in {len(found)} of {len(windows)} layers: {named}{more}; the engine's layer"
            f" {found[0][1].name} holds N x N scores: q, k and v need one head size, so export the model anew"
        )
    if scratch is None:
        raise ModelError(f"{what}: the builder reports no scratch memory, so nothing shows whether attention is fused")
    one_map = batch * size[0] * size[1] * dim * 2
    most = MOST_MAPS_DYNAMIC if dynamic else MOST_MAPS
    if scratch >= max(most * one_map, ALWAYS_ALLOWED):
        worst = max(scratch_of, key=lambda name: scratch_of[name], default="(not named by the builder)")
        raise ModelError(
            f"{what}: attention is not fused: the engine needs {scratch / 1e6:.0f} MB of scratch memory, {scratch / one_map:.0f}"
            f" feature maps, where fused attention stays below {most}; most of it in the layer {worst}"
        )


def _layer_with_scores(
    window: WindowLayer, layers: Sequence[EngineLayer], size: Side, batch: int
) -> EngineLayer | None:
    """Return the first layer of the engine that holds the N x N scores of a window layer."""
    count = batch * math.prod(-(-side // step) for side, step in zip(size, window.window, strict=True))
    for layer in layers:
        if (window.name in layer.nodes or not layer.nodes) and any(
            _is_scores(shape, window, count) for shape in layer.shapes
        ):
            return layer
    return None


def _is_scores(shape: Dimensions, window: WindowLayer, count: int) -> bool:
    """N twice, and as many elements as the scores of all windows and heads; dynamic sides stand for the number of windows."""
    if shape.count(window.tokens) < 2:
        return False
    known = math.prod(side for side in shape if side >= 0)
    if -1 in shape:
        return known >= window.tokens**2
    return known >= count * window.heads * window.tokens**2
