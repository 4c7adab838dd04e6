"""A small network as ONNX file in fp16, and whether TensorRT-RTX is here."""

import functools
import importlib.util
from pathlib import Path

import pytest
import torch
from onnx import ModelProto

from flashrib.export.engine.source import Source, read_source
from flashrib.export.operators.window.bodies import attention_native
from flashrib.export.operators.window.row import window_body
from flashrib.export.options import ExportOptions
from flashrib.export.save import save_onnx
from flashrib.export.to_onnx import export_graph
from flashrib.model import SSTConfig
from flashrib.model.architectures.registry import network_from_config

RTX = importlib.util.find_spec("tensorrt_rtx_bindings") is not None
needs_rtx = pytest.mark.skipif(not RTX, reason="TensorRT-RTX is not installed: pip install 'flashrib[rtx]'")

# Heads of 16 + 16 channels, which TensorRT fuses; 64 tokens, and 1024 whose scores are 32 feature maps of a head's width.
CONFIG = SSTConfig("sst-custom", dim=32, windows=((8, 8), (32, 32)), heads=(2, 2), ranks=(16, 16), blocks=1, ffn_dim=48)
TILE = (64, 64)

# The body that TensorRT fuses, but with v as narrow as it is; Attention itself does not take that.
_NARROW = attention_native.CORE.replace("  padded_v = Pad (head_v, after)\n", "").replace(
    "  attended_wide = Attention <scale: float = 1.0> (query, key, padded_v)\n"
    "  attended_heads = Slice (attended_wide, zero, width_q, last_axis)\n",
    "  keys = Transpose <perm: ints = [0, 1, 3, 2]> (key)\n"
    "  scores = MatMul (query, keys)\n"
    "  weights = Softmax <axis: int = -1> (scores)\n"
    "  attended_heads = MatMul (weights, head_v)\n",
)
NARROW = window_body(_NARROW, attention_native.OPSETS)


@functools.cache
def small_model(precision: str = "fp16", tile: tuple[int, int] | None = None, config: SSTConfig = CONFIG) -> ModelProto:
    torch.manual_seed(3)
    network = network_from_config(config).eval()
    options = ExportOptions(precision=precision, attention="attention", tile=tile)
    return export_graph(network, options, "ab" * 32)[0]


def small_source(folder: Path, precision: str = "fp16", tile: tuple[int, int] | None = None) -> Source:
    return read_source(write_small(folder / "small.onnx", precision, tile))


def write_small(path: Path, precision: str = "fp16", tile: tuple[int, int] | None = None) -> Path:
    save_onnx(small_model(precision, tile), path)
    return path
