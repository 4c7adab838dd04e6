"""What counts as not fused."""

import types
from typing import cast

import pytest

from flashrib.export.engine.fusion import check_fused
from flashrib.export.engine.log import EngineLayer
from flashrib.export.engine.source import Source
from flashrib.export.operators.operator import AttentionLayer
from flashrib.runtime.errors import ModelError

LAYERS = (
    AttentionLayer("first", "window 16x16", 256, 3, (16, 16)),
    AttentionLayer("second", "window 64x64", 4096, 3, (64, 64)),
)
SIZE, DIM = (256, 256), 48
MAP = 256 * 256 * 48 * 2


def source(*layers: AttentionLayer, dim: int = DIM, batch: int = 1) -> Source:
    """What the check asks of a source."""
    asked = types.SimpleNamespace(path="m.onnx", layers=layers, dim=dim, batch=batch)
    return cast(Source, asked)


def check(
    shape: tuple[int, ...], nodes: tuple[str, ...] = ("first",), scratch: int | None = MAP, dynamic: bool = False
) -> None:
    layers = [EngineLayer("gemm_7", (shape,), nodes)]
    check_fused(source(*LAYERS), layers, scratch, {"a": 5, "b": 9}, size=SIZE, dynamic=dynamic)


@pytest.mark.parametrize(
    "shape",
    [
        (768, 256, 40),
        (256, 256, 3, 32),  # as many windows as tokens
        (1, 48, 256, 256),  # a map as wide as a window has tokens
        (1, 192, 256, 256),  # q, k and v of it, widened
        (256, 256),
        (-1, 256, 32),
        (),
    ],
)
def test_fused(shape: tuple[int, ...]) -> None:
    check(shape)


@pytest.mark.parametrize(
    ("shape", "nodes"),
    [
        ((768, 256, 256), ("first",)),
        ((256, 3, 256, 256), ("pads", "first")),
        ((256, 256, 768), ("first",)),
        ((-1, 256, 256), ("first",)),
        ((768, 256, 256), ()),  # the builder does not say what a layer was made from
    ],
)
def test_scores_in_memory(shape: tuple[int, ...], nodes: tuple[str, ...]) -> None:
    with pytest.raises(
        ModelError, match=r"m\.onnx: .* 1 of 2 layers: first \(window 16x16\); .* gemm_7 holds N x N scores"
    ):
        check(shape, nodes)


def test_scores_of_another_layer_are_not_this_ones() -> None:
    check((768, 256, 256), ("elsewhere",))


@pytest.mark.parametrize(("maps", "dynamic"), [(40, False), (80, True)])
def test_scratch(maps: int, dynamic: bool) -> None:
    check((), scratch=maps * MAP - 1, dynamic=dynamic)
    with pytest.raises(
        ModelError, match=rf"{maps} feature maps, where fused attention stays below {maps}; .* layer b$"
    ):
        check((), scratch=maps * MAP, dynamic=dynamic)


def test_fixed_needs_of_a_small_tile() -> None:
    model = source(AttentionLayer("only", "window 8x8", 64, 2, (8, 8)), dim=32)
    check_fused(model, [], 48 * 2**20 - 1, {}, size=(64, 64))
    with pytest.raises(ModelError, match="not named by the builder"):
        check_fused(model, [], 48 * 2**20, {}, size=(64, 64))


@pytest.mark.parametrize(("side", "padded"), [(192, 192), (193, 256), (200, 256), (256, 256)])
def test_a_feature_map_is_whole_windows(side: int, padded: int) -> None:
    most = 40 * 2 * padded * 256 * DIM * 2
    check_fused(source(*LAYERS, batch=2), [], most - 1, {}, size=(side, 256))
    with pytest.raises(ModelError, match=" 40 feature maps, where fused attention stays below 40"):
        check_fused(source(*LAYERS, batch=2), [], most, {}, size=(side, 256))


def test_a_log_that_says_nothing() -> None:
    with pytest.raises(ModelError, match="nothing shows whether attention is fused"):
        check((), scratch=None)


def test_attention_that_is_not_cut_into_windows() -> None:
    model = source(AttentionLayer("whole", "197 tokens", 197, 3))
    check_fused(model, [EngineLayer("gemm", ((1, 3, 197, 64),), ("whole",))], MAP, {}, size=(224, 224))
    with pytest.raises(ModelError, match=r"whole \(197 tokens\); the engine's layer gemm holds N x N scores"):
        check_fused(model, [EngineLayer("gemm", ((1, 3, 197, 197),), ("whole",))], MAP, {}, size=(224, 224))


def test_nothing_to_check() -> None:
    check_fused(source(), [EngineLayer("gemm", ((3, 64, 64),), ())], None, {}, size=SIZE)
