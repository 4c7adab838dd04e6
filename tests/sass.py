"""Reads the machine code that NVIDIA's assembler makes of a kernel, for what no test of results finds for sure."""

import re
import subprocess
import tempfile
from pathlib import Path

# offset, predicate, name, operands
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*?);")
_WRITES = re.compile(r"U[A-Z]|R2UR|S2UR|REDUX")
_REGISTER = re.compile(r"(gdesc\[|desc\[)?\bUR(\d+)\b(\.64)?")


def disassembled(cubin: bytes, nvdisasm: str) -> str:
    """Machine code as text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        done = subprocess.run([nvdisasm, "-c", str(path)], capture_output=True, text=True, check=True)
    return done.stdout


def read_before_written(text: str) -> list[str]:
    """Instructions that read a uniform register which no instruction before them writes; they get whatever lies there.

    The assembler of CUDA 12.8, which Triton 3.6 brings, makes such code of some kernels with two loops of warpgroup products.
    """
    written: set[int] = set()
    found = []
    for name, operands in _INSTRUCTION.findall(text):
        reads, writes = _uniform_registers(name, operands)
        if any(register not in written for register in reads):
            found.append(f"{name} {operands}")
        written.update(writes)
    return found


def _uniform_registers(name: str, operands: str) -> tuple[set[int], set[int]]:
    reads: set[int] = set()
    writes: set[int] = set()
    pairs, wide = re.match(r"U\w+\.64\b", name) is not None, "WIDE" in name
    first, *others = operands.split(",")
    for place, operand in enumerate((first, *others)):
        for kind, number, pair in _REGISTER.findall(operand):
            register = int(number)
            if place == 0 and _WRITES.match(name):
                writes |= {register, register + 1} if pairs or wide else {register}
            elif kind == "gdesc[":  # of both factors, or of the second alone where the first lies in registers
                in_registers = bool(others) and others[0].strip().startswith("R")
                reads |= {register + 2, register + 3} | (set() if in_registers else {register, register + 1})
            else:
                reads |= {register, register + 1} if kind or pair or pairs or (wide and place == 3) else {register}
    return reads, writes
