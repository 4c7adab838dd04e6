"""The model that comes with flashrib: sst-light x2, as an ONNX file and as weights for PyTorch."""

from importlib import resources
from pathlib import Path

from flashrib.runtime.errors import ModelError

MODEL = "2x_SSTlight_fp32.onnx"
WEIGHTS = "sst-light-x2.safetensors"


def default_model() -> Path:
    """Return the path of the bundled ONNX file.

    Raises:
        ModelError: this installation lacks it.
    """
    return _bundled(MODEL)


def default_weights() -> Path:
    """Return the path of the bundled weights, a .safetensors file.

    Raises:
        ModelError: this installation lacks it.
    """
    return _bundled(WEIGHTS)


def _bundled(name: str) -> Path:
    path = Path(str(resources.files("flashrib.runtime"))) / "weights" / name
    if not path.is_file():
        raise ModelError(
            f"{path}: the bundled model is missing from this installation: install flashrib again, or pass --model"
        )
    return path
