"""Arithmetic on dimensions is that of Python."""

import pytest

from flashrib.export.onnxruntime.sizes import Size, ceil_div


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 37, 41), (3, 1, 129)])
def test_expressions(shape: tuple[int, int, int]) -> None:
    batch, height, width = (Size.dimension(0, axis) for axis in range(3))
    b, h, w = shape
    cases = [
        (batch * height * width, b * h * w),
        (ceil_div(height, 8) * ceil_div(width, 6) * batch * 3, -(-h // 8) * -(-w // 6) * b * 3),
        (2 * height + width - 1, 2 * h + w - 1),
        (height // 2 * 2, h // 2 * 2),
        (ceil_div(7, 2), 4),
    ]
    for expression, wanted in cases:
        assert expression.evaluate([shape]) == wanted
    assert str(ceil_div(height * width, 64)) == "0.1,0.2,*,64,^"
