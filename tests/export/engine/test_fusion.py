"""What counts as not fused."""

import pytest

from flashrib.export.engine.fusion import check_fused
from flashrib.export.engine.log import EngineLayer
from flashrib.export.engine.source import WindowLayer
from flashrib.runtime.errors import ModelError

WINDOWS = (WindowLayer("first", (16, 16), 3), WindowLayer("second", (64, 64), 3))
SIZE, DIM = (256, 256), 48
MAP = 256 * 256 * 48 * 2


def check(
    shape: tuple[int, ...], nodes: tuple[str, ...] = ("first",), scratch: int | None = MAP, dynamic: bool = False
) -> None:
    layers = [EngineLayer("gemm_7", (shape,), nodes)]
    check_fused("m.onnx", WINDOWS, layers, scratch, {"a": 5, "b": 9}, size=SIZE, dim=DIM, dynamic=dynamic)


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
    layer = (WindowLayer("only", (8, 8), 2),)
    check_fused("m.onnx", layer, [], 48 * 2**20 - 1, {}, size=(64, 64), dim=32)
    with pytest.raises(ModelError, match="not named by the builder"):
        check_fused("m.onnx", layer, [], 48 * 2**20, {}, size=(64, 64), dim=32)


@pytest.mark.parametrize(("side", "completed"), [(192, 192), (193, 256), (200, 256), (256, 256)])
def test_a_feature_map_is_complete_windows(side: int, completed: int) -> None:
    most = 40 * 2 * completed * 256 * DIM * 2
    check_fused("m.onnx", WINDOWS, [], most - 1, {}, size=(side, 256), dim=DIM, batch=2)
    with pytest.raises(ModelError, match=" 40 feature maps, where fused attention stays below 40"):
        check_fused("m.onnx", WINDOWS, [], most, {}, size=(side, 256), dim=DIM, batch=2)


def test_a_log_that_says_nothing() -> None:
    with pytest.raises(ModelError, match="nothing shows whether attention is fused"):
        check((), scratch=None)
