"""Launch -> machine code for a compute capability; no GPU is needed."""

import contextlib
import dataclasses
import io

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from flashrib.export.onnxruntime.launch import Launch, Node
from flashrib.runtime.errors import FlashribError

_TYPES = {"fp32": "*fp32", "int32": "*i32", "fp16": "*fp16", "bf16": "*bf16"}

# Version of PTX that drivers know which know the capability. PTX of Triton for 90 and later runs on that capability alone.
_PTX_VERSION = 80
_PORTABLE = range(80, 90)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled kernel.

    Attributes:
        entry: its name.
        code: machine code.
        ptx: its text for GPUs to come, ended by a zero byte; empty where it would not run on them.
        threads: of a block.
        shared: bytes of dynamic shared memory of a block.
    """

    entry: str
    code: bytes
    ptx: bytes
    threads: int
    shared: int


def arguments_of(node: Node, launch: Launch) -> dict[str, str]:
    """The arguments of the compiled kernel in order: name -> "iN", "oN" or "nN", input, output or integer N."""
    places = {name: f"i{index}" for index, name in enumerate(node.inputs)}
    places |= {output.argument: f"o{index}" for index, output in enumerate(launch.outputs)}
    places |= {name: f"n{index}" for index, name in enumerate(launch.integers)}
    places |= {name: places[given] for name, given in launch.given.items()}
    return {name: places[name] for name in launch.kernel.arg_names if name in places}


def compile_launch(node: Node, launch: Launch, capability: int) -> Compiled:
    """Compile a kernel.

    Raises:
        FlashribError: Triton cannot, or makes a kernel that asks for memory of its own.
    """
    names = launch.kernel.arg_names
    types = {name: _TYPES[tensor.dtype] for name, tensor in node.inputs.items()}
    types |= {output.argument: _TYPES[output.dtype] for output in launch.outputs}
    types |= {name: types[given] for name, given in launch.given.items()}
    pointers = [name for name in names if name in types]
    types |= dict.fromkeys(launch.integers, "i32")
    source = ASTSource(
        fn=launch.kernel,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs={name: launch.constants.get(name) for name in names if name not in types},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in pointers},  # as ONNX Runtime aligns tensors
    )
    portable = capability in _PORTABLE
    options = {"num_warps": launch.warps, "maxnreg": launch.registers}
    if portable:
        options["ptx_version"] = _PTX_VERSION
    what = f"{node.operator} for sm{capability}"
    try:
        # Triton prints the whole PTX when its assembler fails. Without line numbers, the code does not depend on where it was made.
        with contextlib.redirect_stdout(io.StringIO()), triton.knobs.compilation.scope():
            triton.knobs.compilation.disable_line_info = True
            made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    except Exception as error:  # the compiler's and the assembler's own
        reason = " ".join(str(error).split())[:300]
        raise FlashribError(f"{what} cannot be compiled by Triton {triton.__version__}: {reason}") from error
    scratch = made.metadata.global_scratch_size, made.metadata.profile_scratch_size
    if scratch != (0, 0):
        raise FlashribError(
            f"{what}: Triton {triton.__version__} makes a kernel that needs {scratch[0]} and {scratch[1]} bytes of scratch memory,"
            " which the library does not have: install Triton 3.6"
        )
    ptx = made.asm["ptx"].encode() + b"\0" if portable else b""
    return Compiled(made.metadata.name, made.asm["cubin"], ptx, 32 * made.metadata.num_warps, made.metadata.shared)
