"""Post-training quantization of an exported network to INT8 and FP8, with a measured account of what every layer costs.

Images -> tiles -> ranges of the activations -> sensitivity of every layer -> the layers that fit the budget -> explicit Q/DQ ONNX.
docs/calibration.md has the rules and the figures.

    from flashrib.calibration import CalibrationOptions, calibrate

    calibrate(Path("model.onnx"), Path("photos"), Path("model_fp8.onnx"), CalibrationOptions("fp8"))

The names below are loaded when they are first used.
"""

from typing import TYPE_CHECKING

from flashrib.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from flashrib.calibration.options import CalibrationOptions
    from flashrib.calibration.placement import placement_faults
    from flashrib.calibration.quantize import calibrate
    from flashrib.calibration.report import Report

__all__ = ["CalibrationOptions", "Report", "calibrate", "placement_faults"]

_HOMES = {
    "CalibrationOptions": "options",
    "Report": "report",
    "calibrate": "quantize",
    "placement_faults": "placement",
}


__getattr__, __dir__ = lazy_names(globals(), _HOMES)
