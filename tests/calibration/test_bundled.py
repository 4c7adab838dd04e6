"""The bundled network with every candidate in 8 bits, on pictures of Set5: what docs/calibration.md promises."""

from pathlib import Path

import onnx
import pytest

from flashrib.calibration.apply import with_layers
from flashrib.calibration.formats import FORMATS
from flashrib.calibration.layers import find_layers
from flashrib.calibration.placement import placement_faults
from flashrib.calibration.plan import plan_layers
from flashrib.calibration.quantize import count_work
from flashrib.calibration.statistics import Runs
from flashrib.calibration.tiles import draw_tiles
from flashrib.runtime.artifacts.bundled import bundled_model
from tests.places import SHARED
from tests.set5 import psnr_of_corners


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(("mode", "tiles", "most", "share"), [("int8", 8, 0.05, 0.8), ("fp8", 16, 0.03, 0.9)])
def test_drop_on_set5(mode: str, tiles: int, most: float, share: float, tmp_path: Path) -> None:
    """Corners of all five pictures: on fewer pictures the loss is another one, up to 0.05 dB."""
    model = onnx.load(bundled_model())
    layers = find_layers(model)
    candidates = [layer for layer in layers if not layer.kept]
    drawn = draw_tiles(SHARED / "data" / "bsd400", 2, 64, count=tiles, held_out=2, seed=0)
    plans = plan_layers(Runs(model, drawn.calibration), candidates, mode)
    macs = count_work(model, layers, drawn, None)
    assert sum(macs[layer.name] for layer in candidates) / sum(macs.values()) >= share
    made = with_layers(model, list(plans.values()), FORMATS[mode])
    assert placement_faults(made) == []
    onnx.save(made, tmp_path / "m.onnx")
    drop = psnr_of_corners(bundled_model()) - psnr_of_corners(tmp_path / "m.onnx")
    print(f"{mode}: {drop:.4f} dB")
    assert drop <= most
