"""Triton kernel -> PTX that TensorRT launches."""

import contextlib
import dataclasses
import functools
import io
import re

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from flashrib.export.operators.window.plugin.layer import Layer
from flashrib.model.attention.window.kernel import window_attention_kernel
from flashrib.model.attention.window.tuning import Blocks, power_of_two
from flashrib.runtime.errors import FlashribError

# Oldest version of PTX that knows the capability (PTX ISA, section "Release notes"): a driver takes only versions that it knows.
_PTX_VERSIONS = {80: 80, 86: 80, 87: 80, 89: 80, 90: 80, 100: 86, 103: 88, 110: 90, 120: 87, 121: 88}

# What TensorRT passes: input tensors, extra arguments, output tensors.
_POINTERS = ("qkv", "pos_q", "pos_k", "out")
_INTEGERS = ("H", "W")
_PARAMETERS = ["u64", "u64", "u64", "u32", "u32", "u64"]
_TRITON_PARAMETERS = ["u64", "u64"]  # memory that a kernel may ask Triton's launcher for: global and for profiling

_ENTRY = re.compile(r"(\.visible \.entry (?P<name>\w+)\()(?P<parameters>[^)]*)(\))")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A compiled kernel.

    Attributes:
        name: of the entry in the PTX.
        ptx: its text; parameters: qkv, pos_q, pos_k, H, W, out.
        warps: warps of a block.
        shared: bytes of dynamic shared memory of a block.
    """

    name: str
    ptx: str
    warps: int
    shared: int


@functools.cache
def compile_kernel(layer: Layer, capability: int, blocks: Blocks) -> Kernel:
    """Compile the attention of a layer for a compute capability; no GPU is needed.

    The kernel completes windows by a single reflection, as the other forms in an ONNX file do: no side of the map may be shorter than
    the model's minimum. Tensors are contiguous and aligned to 16 bytes.

    Args:
        layer: what is computed.
        capability: compute capability, 10 * major + minor; PTX of 80, 86, 87 and 89 runs on later ones too, the others not.
        blocks: how a window is cut.

    Raises:
        FlashribError: Triton cannot compile it, or makes a kernel that TensorRT cannot launch.
    """
    kinds = dict.fromkeys(_POINTERS, f"*{layer.dtype}") | dict.fromkeys(_INTEGERS, "i32")
    names = window_attention_kernel.arg_names
    source = ASTSource(
        fn=window_attention_kernel,
        signature={name: kinds.get(name, "constexpr") for name in names},
        constexprs={
            **dict.fromkeys(("gate", "qkv_bias", "gate_bias")),
            "HEADS": layer.heads,
            "D": layer.head_dim,
            "R": layer.rank,
            "WH": layer.window[0],
            "WW": layer.window[1],
            "SHIFT_H": layer.shift[0],
            "SHIFT_W": layer.shift[1],
            "DP": power_of_two(layer.head_dim),
            "RP": power_of_two(layer.rank),
            "BM": blocks.queries,
            "BN": blocks.keys,
            "STAGES": blocks.stages,
            "TINY": False,
            "SHARED": False,
            "PRECISION": "ieee",
        },
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in _POINTERS},
    )
    options = {"num_warps": blocks.warps, "maxnreg": blocks.registers, "ptx_version": _PTX_VERSIONS.get(capability)}
    what = f"the attention plugin (window {layer.window[0]}x{layer.window[1]}, sm_{capability})"
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
    name, shared, warps = compiled.metadata.name, compiled.metadata.shared, compiled.metadata.num_warps
    return Kernel(name, without_triton_parameters(compiled.asm["ptx"], what), warps, shared)


def without_triton_parameters(ptx: str, what: str = "the kernel") -> str:
    """Return the PTX of a kernel without the two parameters that Triton's own launcher passes after all others.

    Raises:
        FlashribError: the parameters are not those of the kernel followed by Triton's, or the kernel uses Triton's.
    """
    entries = list(_ENTRY.finditer(ptx))
    parameters = [line.strip() for line in entries[0]["parameters"].split(",")] if len(entries) == 1 else []
    kinds = [line.split()[1].removeprefix(".") for line in parameters]
    if kinds != _PARAMETERS + _TRITON_PARAMETERS:
        raise FlashribError(
            f"{what}: has the parameters {kinds} instead of {_PARAMETERS + _TRITON_PARAMETERS}: this version of Triton,"
            f" {triton.__version__}, passes others: install 3.6"
        )
    kept = parameters[: len(_PARAMETERS)]
    text = _ENTRY.sub(lambda match: match[1] + "\n\t" + ",\n\t".join(kept) + "\n" + match[4], ptx)
    for parameter in parameters[len(_PARAMETERS) :]:
        name = parameter.split()[-1]
        if re.search(rf"\b{name}\b", text):
            raise FlashribError(
                f"{what}: the kernel reads {name}, which TensorRT does not pass: use --attention native"
            )
    return text
