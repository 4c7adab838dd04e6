"""Triton kernel -> PTX that TensorRT launches."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from flashrib.runtime.errors import FlashribError

# Oldest version of PTX that knows the capability (PTX ISA, section "Release notes"): a driver takes only versions that it knows.
_PTX_VERSIONS = {80: 80, 86: 80, 87: 80, 89: 80, 90: 80, 100: 86, 103: 88, 110: 90, 120: 87, 121: 88}

_TRITON_PARAMETERS = ["u64", "u64"]  # memory that a kernel may ask Triton's launcher for: global and for profiling

_ENTRY = re.compile(r"(\.visible \.entry (?P<name>\w+)\()(?P<parameters>[^)]*)(\))")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A compiled kernel.

    Attributes:
        name: of the entry in the PTX.
        ptx: its text; parameters as TensorRT passes them: input tensors, extra integers, output tensors.
        warps: warps of a block.
        shared: bytes of dynamic shared memory of a block.
    """

    name: str
    ptx: str
    warps: int
    shared: int


def compile_ptx(
    kernel: Any,
    arguments: Mapping[str, str],
    constants: Mapping[str, Any],
    capability: int,
    *,
    warps: int,
    registers: int | None = None,
    what: str,
) -> Kernel:
    """Compile a Triton kernel for a compute capability; no GPU is needed.

    Tensors are aligned to 16 bytes. PTX of 80, 86, 87 and 89 runs on later capabilities too, the others not.

    Args:
        kernel: Triton's kernel; its arguments are tensors and integers, in TensorRT's order, and constants.
        arguments: name -> Triton's type of the tensors ("*fp16") and integers ("i32") that TensorRT passes.
        constants: values of all other arguments.
        capability: compute capability, 10 * major + minor.
        warps: warps of a block.
        registers: most registers of a thread; None: no limit.
        what: the kernel's name in messages.

    Raises:
        FlashribError: Triton cannot compile it, or makes a kernel that TensorRT cannot launch.
    """
    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={name: arguments.get(name, "constexpr") for name in names},
        constexprs=dict(constants),
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n, kind in arguments.items() if kind.startswith("*")},
    )
    options = {"num_warps": warps, "maxnreg": registers, "ptx_version": _PTX_VERSIONS.get(capability)}
    try:
        # Triton prints the whole PTX when its assembler fails. Without line numbers, the PTX does not depend on where it was made.
        with contextlib.redirect_stdout(io.StringIO()), triton.knobs.compilation.scope():
            triton.knobs.compilation.disable_line_info = True
            compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    except Exception as error:  # the compiler's and the assembler's own
        reason = " ".join(str(error).split())[:300]
        raise FlashribError(f"{what} cannot be compiled by Triton {triton.__version__}: {reason}") from error
    scratch = compiled.metadata.global_scratch_size, compiled.metadata.profile_scratch_size
    if scratch != (0, 0):
        raise FlashribError(
            f"{what}: Triton {triton.__version__} makes a kernel that needs {scratch[0]} and {scratch[1]} bytes of scratch memory,"
            " which TensorRT does not give it: use --attention native"
        )
    kinds = ["u64" if arguments[n].startswith("*") else f"u{arguments[n][1:]}" for n in names if n in arguments]
    name, shared, warps = compiled.metadata.name, compiled.metadata.shared, compiled.metadata.num_warps
    return Kernel(name, without_triton_parameters(compiled.asm["ptx"], kinds, what), warps, shared)


def without_triton_parameters(ptx: str, kinds: Sequence[str], what: str = "the kernel") -> str:
    """Return the PTX of a kernel without the two parameters that Triton's own launcher passes after all others.

    Args:
        ptx: as from Triton.
        kinds: PTX types of the kernel's own parameters, such as "u64" for a tensor.
        what: the kernel's name in messages.

    Raises:
        FlashribError: the parameters are not those of the kernel followed by Triton's, or the kernel uses Triton's.
    """
    expected = [*kinds, *_TRITON_PARAMETERS]
    entries = list(_ENTRY.finditer(ptx))
    parameters = [line.strip() for line in entries[0]["parameters"].split(",")] if len(entries) == 1 else []
    found = [line.split()[1].removeprefix(".") for line in parameters]
    if found != expected:
        raise FlashribError(
            f"{what}: has the parameters {found} instead of {expected}: this version of Triton,"
            f" {triton.__version__}, passes others: install 3.6"
        )
    kept = parameters[: len(kinds)]
    text = _ENTRY.sub(lambda match: match[1] + "\n\t" + ",\n\t".join(kept) + "\n" + match[4], ptx)
    for parameter in parameters[len(kinds) :]:
        name = parameter.split()[-1]
        if re.search(rf"\b{name}\b", text):
            raise FlashribError(
                f"{what}: the kernel reads {name}, which TensorRT does not pass: use --attention native"
            )
    return text
