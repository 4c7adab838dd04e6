"""The flavour tensorrt against TensorRT 11's real Python API, its builder replaced by TensorRT-RTX's; needs the shared tool."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.engine.sources import TILE, needs_rtx, write_small
from tests.places import SHARED

TOOL = SHARED / "tools" / "tensorrt_registration.py"

BUILD = """
import json, sys
from pathlib import Path
from flashrib.export.engine.engine_from_onnx import engine_from_onnx
from flashrib.export.engine.options import EngineOptions
from flashrib.export.engine.source import read_source

onnx, cache, height, width = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
phases, built = set(), []
for targets in ((), ("ampere+",)):
    options = EngineOptions("tensorrt", targets, usual=(height, width), workspace=4096)
    report = lambda fraction, phase: phases.add(phase)
    engine = engine_from_onnx(read_source(onnx), options, timing_cache=cache, progress=report)
    m = engine.manifest
    built.append([m.flavour, m.version, m.targets, m.layers, m.scratch_bytes, len(engine.plan)])
print(json.dumps([built, sorted(phases)]))
"""


@pytest.mark.shared
@pytest.mark.slow
@needs_rtx
def test_build(tmp_path: Path) -> None:
    if not TOOL.is_file():
        pytest.skip(f"the stand-in for TensorRT's library is not at hand: {TOOL}")
    script, cache = tmp_path / "build.py", tmp_path / "timing"
    script.write_text(BUILD)
    onnx = write_small(tmp_path / "m.onnx")
    command = [sys.executable, str(TOOL), str(script), str(onnx), str(cache), *map(str, TILE)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    if "No matching distribution" in result.stderr or "CalledProcessError" in result.stderr:
        pytest.skip("the wheels of the stand-in cannot be installed here")
    assert result.returncode == 0, result.stderr[-2000:]
    built, phases = json.loads(result.stdout.splitlines()[-1])
    for (flavour, version, targets, layers, scratch, size), wanted in zip(built, ([], ["ampere+"]), strict=True):
        assert (flavour, targets) == ("tensorrt", wanted)
        assert version.startswith("11.")
        assert layers > 10
        assert 0 < scratch < 32 << 20
        assert size > 10_000
    assert phases
    assert cache.exists()
