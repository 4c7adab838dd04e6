"""Is the attention of every layer fused?

A fused layer keeps its N x N scores on the chip. An unfused one writes them to memory, N / D times a feature map;
nothing in TensorRT says so. Two signs, each sufficient:

* a layer of the engine reads or writes a tensor of the scores' size that has N twice among its sides;
* the engine needs 40 feature maps of scratch memory or more, 80 where its size is dynamic. A feature map is pixels x dim x 2 bytes,
  the pixels being those of the picture padded to whole windows; of an engine of dynamic size, of its largest picture.

Measured with TensorRT-RTX 1.7 (docs/tensorrt.md has the table): fused engines of one size need 19 to 34 feature maps, and up to 67 where
the size is dynamic, because the builder then plans less tightly. About 20 MiB do not grow with the picture; where a feature map is
smaller than 1.2 MiB, these alone bring it near the bound or over it, so 48 MiB are always allowed. The scores of a single unfused layer
of window 64, N x heads / dim feature maps, are 256 maps in sst-light, and 96 MiB on its smallest tile. Small windows stay below the
bound, which is what the first sign is for.
"""

import math
from collections.abc import Mapping, Sequence

from flashrib.export.engine.log import Dimensions, EngineLayer
from flashrib.export.engine.source import Source
from flashrib.export.operators.operator import AttentionLayer
from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.errors import ModelError

MOST_MAPS = 40
MOST_MAPS_DYNAMIC = 80
ALWAYS_ALLOWED = 48 << 20  # bytes


def check_fused(
    source: Source,
    layers: Sequence[EngineLayer],
    scratch: int | None,
    scratch_of: Mapping[str, int],
    size: Side,
    dynamic: bool = False,
) -> None:
    """Refuse an engine in which the attention of a layer is not fused.

    Args:
        source: the model; without attention layers to check, nothing is refused.
        layers: layers of the engine, as far as known.
        scratch: bytes of scratch memory of the engine, as reported by the builder.
        scratch_of: the same by layer.
        size: largest (H, W) of the input in pixels.
        dynamic: True where the engine takes smaller sizes as well.

    Raises:
        ModelError: some attention is not fused, or nothing shows that it is.
    """
    what, attention = source.path, source.layers
    if not attention:
        return
    found = [(one, layer) for one in attention if (layer := _layer_with_scores(one, layers, size, source.batch))]
    if found:
        named = ", ".join(f"{one.name} ({one.what})" for one, _ in found[:4])
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise ModelError(
            f"{what}: attention is not fused in {len(found)} of {len(attention)} layers: {named}{more}; the engine's layer"
            f" {found[0][1].name} holds N x N scores: q, k and v need one head size, a multiple of 8 from 16 to 256: export"
            " a model that has it, or use a later TensorRT"
        )
    if scratch is None:
        raise ModelError(f"{what}: the builder reports no scratch memory, so nothing shows whether attention is fused")
    one_map = source.batch * max(one.positions(size) for one in attention) * source.dim * 2
    most = MOST_MAPS_DYNAMIC if dynamic else MOST_MAPS
    if scratch >= max(most * one_map, ALWAYS_ALLOWED):
        worst = max(scratch_of, key=lambda name: scratch_of[name], default="(not named by the builder)")
        raise ModelError(
            f"{what}: attention is not fused: the engine needs {scratch / 1e6:.0f} MB of scratch memory, {scratch / one_map:.0f}"
            f" feature maps, where fused attention stays below {most}; most of it in the layer {worst}"
        )


def _layer_with_scores(
    attention: AttentionLayer, layers: Sequence[EngineLayer], size: Side, batch: int
) -> EngineLayer | None:
    """Return the first layer of the engine that holds the N x N scores of an attention layer."""
    count = batch * attention.score_maps(size)
    for layer in layers:
        if (attention.name in layer.nodes or not layer.nodes) and any(
            _is_scores(shape, attention, count) for shape in layer.shapes
        ):
            return layer
    return None


def _is_scores(shape: Dimensions, attention: AttentionLayer, count: int) -> bool:
    """N twice, and as many elements as all of the layer's scores; dynamic sides stand for the number of windows."""
    if shape.count(attention.tokens) < 2:
        return False
    known = math.prod(side for side in shape if side >= 0)
    if -1 in shape:
        return known >= attention.tokens**2
    return known >= count * attention.heads * attention.tokens**2
