"""Run by `test_plugin.py` under the shared tool: prints what NVIDIA's framework found out, as JSON."""

import json
from unittest import mock

import tensorrt as trt
from tensorrt_registration import drive

from flashrib.export.operators.disc.row import DISC_ATTENTION
from flashrib.export.operators.plugin.model import register


def main() -> None:
    """Heads of 16 channels, 6 pooled keys or none; the tool knows floating-point types alone, so its "bf16" stands for int32."""
    register(trt, [DISC_ATTENTION])
    for pooled in (0, 6):
        n = 70 + 8 * 12
        shapes = [(2, n, 3, 16), *2 * [(2, n + pooled, 3, 16)]]
        inputs = [(shape, "fp16") for shape in shapes] + [((3,), "bf16"), ((2,), "bf16"), ((9,), "bf16")]
        attributes = {
            "text": 70,
            "radius": 4,
            "scale": 0.25,
            "height": 8,
            "width": 12,
            "pooled": pooled,
            "capability": 80,
        }
        with mock.patch.object(trt, "bfloat16", trt.int32):
            answer = drive("flashrib::DiscAttention", inputs, attributes)
        assert [tuple(shape) for shape, _ in answer["outputs"]] == [(2, n, 3, 16), (2, 3, n)]
        tiles = 2 + 1 * 2  # 70 text tokens in tiles of 64, 8 x 12 in tiles of 8 x 8
        assert next(iter(answer["grid"])) == 2 * 3 * tiles, answer["grid"]
        assert b".target sm_80" in answer["ptx"]
    print(json.dumps("done"))


main()
