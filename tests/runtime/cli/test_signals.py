"""Ctrl-C and SIGTERM end the process soon and leave nothing behind; closed standard streams and pipes are no harm.

benchmarks/signals.py tries every command at many random moments.
"""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise

PROGRAM = [sys.executable, "-m", "flashrib.runtime.cli"]
SECONDS = 5.0  # of a loaded machine; 0.3 s where nothing else runs


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for index in range(3):
        Image.fromarray(noise(400, 400, 3)).save(f"in/{index}.png")
    write_onnx(Path("model.onnx"))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", ["start", "work"])
def test_a_signal_ends_the_process_soon(moment: str, number: signal.Signals) -> None:
    # The bundled model takes many seconds for these pictures.
    arguments = [*PROGRAM, "upscale", "in", "-o", "new/out"]
    # Whoever runs this may ignore it, as a shell's background jobs do.
    heard = functools.partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    ) as process:
        if moment == "start":
            time.sleep(0.3)
        else:
            deadline = time.monotonic() + 60
            while not Path("new/out").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.5)
        assert process.poll() is None
        sent = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < SECONDS
    # Before Python itself has started, nothing of ours can answer.
    if not (moment == "start" and process.returncode == -number):
        assert (process.returncode, out) == (128 + number, "")
        assert err == f"flashrib: {'interrupted' if number == signal.SIGINT else 'terminated'}\n"
    assert not [path for path in Path().rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_streams(closed: str) -> None:
    command = f"{' '.join(PROGRAM)} upscale in/0.png -o out.png --model model.onnx {closed}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with Image.open("out.png") as image:
        assert image.size == (800, 800)
    failing = f"{' '.join(PROGRAM)} upscale nowhere.png -o out.png --model model.onnx {closed}"
    assert subprocess.run(["bash", "-c", failing], capture_output=True).returncode == 1


def test_pipes_in_both_directions() -> None:
    wanted = noise(400, 400, 3).repeat(2, 0).repeat(2, 1)
    for command in (
        "cat in/0.png | {program} upscale - -o - --model model.onnx > out.png",
        "{program} upscale /dev/stdin -o /dev/stdout --format png --model model.onnx < in/0.png | cat > out.png",
        "{program} upscale <(cat in/0.png) -o >(cat > out.png) --model model.onnx; wait",
    ):
        Path("out.png").unlink(missing_ok=True)
        result = subprocess.run(
            ["bash", "-c", command.format(program=" ".join(PROGRAM))], capture_output=True, text=True
        )
        assert (result.returncode, result.stderr) == (0, ""), command
        for _ in range(100):  # the last process of a substitution may end later
            if Path("out.png").exists() and Path("out.png").stat().st_size > 1000:
                break
            time.sleep(0.05)
        with Image.open("out.png") as image:
            np.testing.assert_array_equal(np.asarray(image), wanted)
    assert sorted(path.name for path in Path().iterdir()) == ["in", "model.onnx", "out.png"]
