"""NVIDIA's framework of plugins, TensorRT 11's, asks the registered plugin what it asks during a build; needs the shared tool."""

import json
import os
import subprocess
import sys

import pytest

from tests.official import UPSCALERS
from tests.places import ROOT, SHARED

TOOL = SHARED / "tools" / "tensorrt_registration.py"
SCRIPT = ROOT / "tests" / "export" / "operators" / "window" / "plugin" / "driven.py"

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def run(*arguments: str) -> list[str]:
    """Run `driven.py` under the tool and return the checks that it has done."""
    if not TOOL.is_file():
        pytest.skip(f"the stand-in for TensorRT's library is not at hand: {TOOL}")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, str(TOOL), str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    if "No matching distribution" in result.stderr or "CalledProcessError" in result.stderr:
        pytest.skip("the wheels of the stand-in cannot be installed here")
    assert result.returncode == 0, result.stderr[-3000:]
    done: list[str] = json.loads(result.stdout.splitlines()[-1])
    return done


@pytest.mark.parametrize("presets", [UPSCALERS[:4], UPSCALERS[4:]], ids=" ".join)
def test_every_layer_of_every_preset(presets: tuple[str, ...]) -> None:
    done = run("presets", *presets)
    assert {line.split(":")[0] for line in done} == set(presets)


@pytest.mark.parametrize("checks", [("tactics", "types", "attributes", "mixed_types"), ("model",)], ids=" ".join)
def test_framework(checks: tuple[str, ...]) -> None:
    assert run(*checks) == list(checks)
