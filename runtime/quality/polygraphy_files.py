"""What `polygraphy run` needs to repeat a verification: inputs, the reference's outputs, and the bounds as its comparison.

Polygraphy compares runtimes; for ONNX Runtime and TensorRT it is what people expect. The folder holds

    inputs.npz       the inputs of `flashrib verify`, but those of sizes or shapes that the model does not take
    data_loader.py   hands them out
    golden.json      the outputs of the reference, as Polygraphy saves outputs
    compare.py       RMS of the difference over RMS of the reference, as `flashrib verify` bounds it
    run.sh           the command; further options of `polygraphy run` may be given to it
"""

import importlib
import importlib.util
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from flashrib.runtime.artifacts.files import write_whole
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.errors import FlashribError, MissingPackageError, UsageError
from flashrib.runtime.quality.parity import Parity
from flashrib.runtime.quality.parity_bounds import LEAST_RMS, bound_of

LOADER = '''"""Inputs for `polygraphy run --data-loader-script`."""

from pathlib import Path

import numpy as np


def load_data():
    with np.load(Path(__file__).with_name("inputs.npz")) as inputs:
        for name in inputs.files:
            yield {{"input": inputs[name].astype(np.{dtype})}}
'''

COMPARE = '''"""Comparison for `polygraphy run --compare-func-script`: as `flashrib verify` bounds {precision} beside float32."""

import numpy as np


def compare_outputs(result, golden):
    passed = {{}}
    for name in golden:
        found, wanted = (np.asarray(r[name], dtype=np.float64) for r in (result, golden))
        rms = np.sqrt(np.mean(wanted**2))
        ratio = np.sqrt(np.mean((found - wanted) ** 2)) / max(rms, {least})
        print(f"{{name}} {{found.shape}}: RMS ratio {{ratio:.3e}}, largest difference {{np.abs(found - wanted).max():.3e}}")
        passed[name] = bool({conditions})
    return passed
'''


def require_polygraphy() -> None:
    """Raise MissingPackageError where Polygraphy is not installed."""
    if importlib.util.find_spec("polygraphy") is None:
        raise MissingPackageError("polygraphy", "--polygraphy", "polygraphy")


def write_polygraphy_files(parity: Parity, folder: Path) -> Path:
    """Write the folder for the one artifact of a verification, an ONNX file, whose cases are all in `parity.shown`.

    Returns:
        The script with the command.

    Raises:
        UsageError: there are several artifacts, or the one is no ONNX file.
        MissingPackageError: Polygraphy is not installed.
        FlashribError: a file cannot be written.
    """
    require_polygraphy()
    if len(parity.artifacts) != 1 or parity.artifacts[0].file.suffix.lower() != ".onnx":
        raise UsageError("--polygraphy: takes one artifact, an ONNX file, since that is what polygraphy runs")
    file = parity.artifacts[0].file
    info = describe_onnx(file)
    if info.noise:
        raise UsageError(
            f"--polygraphy: {file} takes noise beside the picture: export it with --noise-seed or --no-noise"
        )
    comparator: Any = importlib.import_module("polygraphy.comparator")
    cases = [shown for shown in parity.shown if info.fixed_size in (None, shown.case.batch.shape[2:])]
    if not cases:
        raise FlashribError(f"{file}: takes {info.fixed_size} alone, and no input has that size: choose it with --side")
    golden = comparator.RunResults()
    golden.add([{"output": shown.reference.astype(np.float32)} for shown in cases], runner_name="flashrib-reference")
    bound = bound_of(info.precision)
    conditions = ["np.isfinite(found).all()"]
    if bound.rms_ratio is not None:
        conditions.append(f"ratio <= {bound.rms_ratio}")
    if bound.max_abs is not None:
        conditions.append(f"np.abs(found - wanted).max() <= {bound.max_abs}")
    dtype = "float16" if info.io == "fp16" else "float32"
    compare = COMPARE.format(precision=info.precision, least=LEAST_RMS, conditions=" and ".join(conditions))
    command = (
        '#!/bin/sh\n# The model in ONNX Runtime against the reference; "--trt" in place of "--onnxrt" for TensorRT.\n'
        'here=$(cd "$(dirname "$0")" && pwd)\n'
        f"exec polygraphy run {shlex.quote(str(file.resolve()))} --model-type onnx ${{RUNNER:---onnxrt}} --validate \\\n"
        '  --data-loader-script "$here/data_loader.py" --load-outputs "$here/golden.json" \\\n'
        '  --compare-func-script "$here/compare.py" "$@"\n'
    )
    inputs: dict[str, Any] = {f"{i:02}_{shown.case.name}": shown.case.batch for i, shown in enumerate(cases)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "inputs.npz", **inputs)
        golden.save(str(folder / "golden.json"))
    except OSError as error:
        raise FlashribError(f"{folder}: cannot be written: {error.strerror or error}") from error
    for name, text in (("data_loader.py", LOADER.format(dtype=dtype)), ("compare.py", compare), ("run.sh", command)):
        write_whole(folder / name, text.encode())
    script = folder / "run.sh"
    script.chmod(0o755)
    return script
