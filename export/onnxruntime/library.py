"""Operators -> shared library: kernels compiled for all targets, a table of how they are launched, and `library.cpp` around both."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from flashrib.export.onnxruntime.compile import arguments_of, compile_launch
from flashrib.export.onnxruntime.graph import LibraryOperator
from flashrib.export.onnxruntime.launch import ELEMENT_TYPES
from flashrib.export.onnxruntime.sizes import Size
from flashrib.runtime.errors import FlashribError, SessionError

SOURCES = ("library.cpp", "abi.hpp", "driver.hpp")
_COMPILERS = ("c++", "g++", "clang++")
_ALIGNMENT = 64


def table_of(operators: Sequence[LibraryOperator], capabilities: Sequence[int]) -> tuple[str, bytes]:
    """Return the table of the library and the compiled kernels, both as `library.cpp` reads them.

    Raises:
        FlashribError: a kernel cannot be compiled.
    """
    lines: list[str] = []
    images = bytearray()
    places: dict[bytes, int] = {}

    def place(code: bytes) -> int:
        if code not in places:
            images.extend(bytes(-len(images) % _ALIGNMENT))
            places[code] = len(images)
            images.extend(code)
        return places[code]

    portable = min(capabilities)  # PTX of the oldest target serves GPUs that are later than all of them
    for operator in operators:
        outputs = operator.kernel.launches(operator.node, capabilities[0])[0].outputs
        lines.append(f"op {operator.name}")
        lines.append(" ".join(["inputs", *(str(ELEMENT_TYPES[t.dtype]) for t in operator.node.inputs.values())]))
        for output in outputs:
            sides = (str(Size.of(side)) for side in output.shape)
            lines.append(" ".join(["output", str(ELEMENT_TYPES[output.dtype]), *sides]))
        # of each launch, the kernels for all capabilities
        for launches in zip(*(operator.kernel.launches(operator.node, c) for c in capabilities), strict=True):
            lines.append("launch")
            for capability, launch in zip(capabilities, launches, strict=True):
                made = compile_launch(operator.node, launch, capability)
                lines.append(" ".join(["parameters", *arguments_of(operator.node, launch).values()]))
                lines.append(" ".join(["integers", *map(str, launch.integers.values())]))
                grid = " ".join(str(Size.of(side)) for side in (*launch.grid, 1, 1)[:3])
                for exact, code in ((1, made.code), (0, made.ptx if capability == portable else b"")):
                    if code:
                        about = f"{capability} {exact} {place(code)} {made.threads} {made.shared} {made.entry}"
                        lines.append(f"image {about} {grid}")
    return "\n".join(lines) + "\n", bytes(images)


def build_library(table: str, images: bytes, output: Path, flags: Sequence[str] = ()) -> None:
    """Compile the library.

    Args:
        table: see `table_of`.
        images: see `table_of`.
        output: the file to write.
        flags: further options of the compiler.

    Raises:
        SessionError: there is no C++ compiler on this machine.
        FlashribError: it fails.
    """
    with tempfile.TemporaryDirectory(prefix="flashrib-") as folder:
        for name in SOURCES:
            shutil.copy(Path(__file__).with_name(name), folder)
        Path(folder, "table.txt").write_text(table)
        Path(folder, "images.bin").write_bytes(images)
        made = Path(folder, "library.so")
        command = [compiler(), "-std=c++17", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden"]
        command += [*flags, "-s", "-o", made.name, SOURCES[0], "-ldl"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            reason = next((line for line in lines if "error" in line), lines[-1])
            raise FlashribError(f"{command[0]} cannot compile the library: {reason}")
        shutil.copyfile(made, output)


def compiler() -> str:
    """Return the C++ compiler: that of the environment variable CXX, or the first usual one.

    Raises:
        SessionError: there is none.
    """
    wanted = os.environ.get("CXX")
    for name in (wanted,) if wanted else _COMPILERS:
        if found := shutil.which(name):
            return found
    raise SessionError(
        "building a library of custom operators needs a C++ compiler, and there is no "
        + (
            f"{wanted} (environment variable CXX)"
            if wanted
            else f"{', '.join(_COMPILERS)} on this machine: install g++"
        )
    )
