"""Is the attention of every window layer fused?

A fused layer keeps its N x N scores on the chip. An unfused one writes them to memory, N / D times a feature map;
nothing in TensorRT says so. Two signs, each sufficient:

* a layer of the engine reads or writes a tensor of the scores' size that has N twice among its sides;
* the engine needs 40 feature maps of scratch memory or more, 80 where its size is dynamic. A feature map is pixels x dim x 2 bytes,
  the pixels being those of the picture completed to whole windows; of an engine of dynamic size, of its largest picture.

Measured with TensorRT-RTX 1.7 (docs/tensorrt.md has the table): fused engines of one size need 19 to 34 feature maps, and up to 67 where
the size is dynamic, because the builder then plans less tightly. About 20 MiB do not grow with the picture; where a feature map is
smaller than 1.2 MiB, these alone bring it near the bound or over it, so 48 MiB are always allowed. The scores of a single unfused layer
of window 64, N x heads / dim feature maps, are 256 maps in sst-light, and 96 MiB on its smallest tile. Small windows stay below the
bound, which is what the first sign is for.
"""

import math
from collections.abc import Mapping, Sequence

from flashrib.export.engine.log import Dimensions, EngineLayer
from flashrib.export.engine.source import WindowLayer
from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.errors import ModelError

MOST_MAPS = 40
MOST_MAPS_DYNAMIC = 80
ALWAYS_ALLOWED = 48 << 20  # bytes


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
            f" {found[0][1].name} holds N x N scores: q, k and v need one head size, a multiple of 8 from 16 to 256: export"
            " a model that has it, or use a later TensorRT"
        )
    if scratch is None:
        raise ModelError(f"{what}: the builder reports no scratch memory, so nothing shows whether attention is fused")
    one_map = batch * _completed_pixels(windows, size) * dim * 2
    most = MOST_MAPS_DYNAMIC if dynamic else MOST_MAPS
    if scratch >= max(most * one_map, ALWAYS_ALLOWED):
        worst = max(scratch_of, key=lambda name: scratch_of[name], default="(not named by the builder)")
        raise ModelError(
            f"{what}: attention is not fused: the engine needs {scratch / 1e6:.0f} MB of scratch memory, {scratch / one_map:.0f}"
            f" feature maps, where fused attention stays below {most}; most of it in the layer {worst}"
        )


def _completed_pixels(windows: Sequence[WindowLayer], size: Side) -> int:
    """Return the pixels of a picture that is completed to whole windows, of the layer where they are most."""
    completed = [[-(-side // step) * step for side, step in zip(size, layer.window, strict=True)] for layer in windows]
    return max(math.prod(sides) for sides in completed)


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
