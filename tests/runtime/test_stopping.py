"""The end of a process removes what is temporary, whatever else it holds."""

import subprocess
import sys
from pathlib import Path

CODE = """
import signal, sys, tempfile
from pathlib import Path
from flashrib.runtime import stopping
from flashrib.runtime.artifacts.files import opened_whole, staging_folder
kept = tempfile.TemporaryDirectory(dir=sys.argv[1])
gone = tempfile.TemporaryDirectory(dir=sys.argv[1])
gone.cleanup()
with staging_folder(Path(sys.argv[1])) as folder, opened_whole(Path(sys.argv[1]) / "file") as file:
    (folder / "m.onnx").touch()
    print(len(list(Path(sys.argv[1]).iterdir())), flush=True)
    stopping.received.append(signal.SIGTERM)
    stopping.end()
"""


def test_end_removes_what_is_temporary(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (143, "3\n", "flashrib: terminated\n")
    assert list(tmp_path.iterdir()) == []
