"""Run a package of AOTInductor in a process of its own: `python -m flashrib.export.package.run PACKAGE INPUTS RESULT`.

What a package does to the process that compiled it says little about others: one that was linked with a C++ compiler without the shared
libstdc++ works there and ends every other process that loads it (seen with PyTorch 2.11).
"""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from flashrib.runtime.errors import SessionError
from flashrib.runtime.sessions.torch_plain import full_float32


def run_alone(package: Path, inputs: list[torch.Tensor]) -> torch.Tensor:
    """Result of the package for a picture, and its noise where it takes some, from a new process.

    Raises:
        SessionError: the package cannot be loaded or run there.
    """
    if inputs[0].is_cuda:
        torch.cuda.empty_cache()  # the other process needs memory too
    with tempfile.TemporaryDirectory(prefix="flashrib-") as folder:
        given, found = Path(folder) / "inputs.pt", Path(folder) / "result.pt"
        torch.save(inputs, given)
        command = [sys.executable, "-m", "flashrib.export.package.run", str(package), str(given), str(found)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise SessionError(
                f"the package ends any process that loads it ({name}), so nothing was written; often the C++ compiler is the cause: one"
                " without the shared libstdc++. Name another one in the environment variable CXX"
            )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise SessionError(f"the package does not run in a new process, so nothing was written: {lines[-1]}")
        result: torch.Tensor = torch.load(found, weights_only=True)
    return result


def main(package: str, given: str, result: str) -> None:
    from torch._inductor import aoti_load_package

    import flashrib.model.gpu.convolution  # noqa: F401  # the operator that packages for GPUs call

    inputs = torch.load(given, weights_only=True)
    with full_float32(inputs[0].device.type), torch.inference_mode():
        torch.save(aoti_load_package(package, run_single_threaded=True)(*inputs), result)


if __name__ == "__main__":
    main(*sys.argv[1:])
