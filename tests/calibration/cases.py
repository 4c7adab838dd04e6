"""A small exported network and a folder of small pictures."""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from PIL import Image

from flashrib.calibration.layers import Layer, find_layers
from flashrib.calibration.plan import LayerPlan, plan_layers
from flashrib.calibration.statistics import Runs
from flashrib.calibration.tiles import TileSet, draw_tiles
from flashrib.export.options import ExportOptions
from flashrib.export.save import save_onnx
from flashrib.export.to_onnx import export_graph
from flashrib.model.config import NetworkConfig
from tests.model.networks import SMALL, small_network

SIDE = 24  # of the tiles


@functools.cache
def small_model(config: NetworkConfig = SMALL, precision: str = "fp32") -> ModelProto:
    return export_graph(small_network(config), ExportOptions(precision=precision), "ab" * 32)[0]


def write_model(path: Path, config: NetworkConfig = SMALL, precision: str = "fp32") -> Path:
    save_onnx(small_model(config, precision), path)
    return path


def write_pictures(folder: Path, count: int = 12, side: int = 60) -> Path:
    """Smooth pictures with some noise, all different."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        Image.fromarray(smooth(side, index)).save(folder / f"p{index:02}.png")
    return folder


def smooth(side: int, seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), np.int64)
    return np.clip(image + random.integers(-20, 21, image.shape), 0, 255).astype(np.uint8)


def candidates(model: ModelProto) -> list[Layer]:
    return [layer for layer in find_layers(model) if not layer.kept]


def tiles(folder: Path) -> TileSet:
    return draw_tiles(write_pictures(folder), 2, SIDE, count=4, held_out=3, seed=0)


def plans(model: ModelProto, drawn: TileSet, mode: str, method: str = "minmax") -> dict[str, LayerPlan]:
    return plan_layers(Runs(model, drawn.calibration, 1), candidates(model), mode, method)
