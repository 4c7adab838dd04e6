"""Targets and sizes."""

import dataclasses
from typing import Any

import pytest

from flashrib.export.engine.options import EngineOptions, usual_size
from flashrib.runtime.errors import UsageError
from tests.runtime.sessions.engines import METADATA


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flavour": "trt"}, "flavour 'trt' is not one of rtx, tensorrt"),
        ({"targets": ("86",)}, "target '86' is neither a compute capability such as sm86 nor current"),
        ({"targets": ("",)}, "target '' is neither"),
        ({"targets": ("current", "sm86")}, "goes with no other: current,sm86"),
        ({"targets": ("sm86", "sm86")}, "named twice"),
        ({"workspace": 0}, "0 MB"),
        ({"version_compatible": True}, "use --flavour tensorrt"),
        ({"flavour": "tensorrt", "targets": ("sm86",)}, r"target 'sm86': TensorRT builds on the GPU"),
        ({"flavour": "tensorrt", "targets": ("ampere+", "current")}, "use --target current"),
    ],
)
def test_contradictions(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EngineOptions(**({"flavour": "rtx"} | options))


@pytest.mark.parametrize(
    ("sizes", "static", "expected"),
    [
        ({}, None, ((256, 256),) * 3),
        ({}, (96, 128), ((96, 128),) * 3),
        ({"usual": (64, 96)}, None, ((64, 96),) * 3),
        ({"largest": (64, 96)}, None, ((64, 96),) * 3),
        ({"smallest": (64, 64), "largest": (96, 96)}, None, ((64, 64), (96, 96), (96, 96))),
        ({"smallest": (64, 64), "usual": (80, 96), "largest": (96, 96)}, None, ((64, 64), (80, 96), (96, 96))),
        ({"usual": (96, 128)}, (96, 128), ((96, 128),) * 3),
    ],
)
def test_shapes(sizes: dict[str, Any], static: tuple[int, int] | None, expected: object) -> None:
    assert EngineOptions("rtx", **sizes).shapes(METADATA, static) == expected


@pytest.mark.parametrize(
    ("sizes", "static", "message"),
    [
        ({"usual": (64, 32)}, None, "64x32: a side is below 33 pixels, the least that sst-light takes"),
        ({"usual": (64, 64), "largest": (96, 63)}, None, r"64x64, 96x63 are not in the order"),
        ({"smallest": (80, 64), "usual": (64, 64)}, None, "not in the order --min, --opt, --max"),
        ({"usual": (64, 64)}, (96, 128), r"takes 96x128 only, not 64x64: .* --dynamic"),
    ],
)
def test_shapes_that_cannot_be(sizes: dict[str, Any], static: tuple[int, int] | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EngineOptions("rtx", **sizes).shapes(METADATA, static)


@pytest.mark.parametrize(("alignment", "side"), [(64, 256), (96, 192), (32, 256), (8, 256), (300, 300)])
def test_usual_size_is_made_of_whole_windows(alignment: int, side: int) -> None:
    assert usual_size(dataclasses.replace(METADATA, alignment=alignment)) == (side, side)
