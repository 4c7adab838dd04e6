"""What a node of a graph launches on a GPU: the kernel, its arguments and its grid.

An operator with a kernel for ONNX Runtime names a module in its row of the table that has a `Kernel` as `KERNEL`; the fused passes of
`flashrib.model.gpu` have theirs in `passes.py`. A kernel gets the same constants and the same grid here as where PyTorch launches it, but
that a side of the map is arithmetic on dimensions (`sizes.py`).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flashrib.export.onnxruntime.sizes import Number, Size

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto

PRECISION = "tf32x3"  # of float32 matmuls; no meaning for 16 bit

# Names of Triton for element types, and ONNX's numbers.
ELEMENT_TYPES = {"fp32": 1, "int32": 6, "fp16": 10, "bf16": 16}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input of a node.

    Attributes:
        dtype: a key of `ELEMENT_TYPES`.
        shape: its dimensions; None for one that is not known before the model runs.
    """

    dtype: str
    shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        operator: its type, "gpu_chain".
        inputs: by the kernel's argument names, in order; missing ones are left out.
        attributes: by name.
    """

    operator: str
    inputs: Mapping[str, Tensor]
    attributes: Mapping[str, Any]

    def side(self, tensor: str, axis: int) -> Size:
        """Dimension `axis` of an input, known or not."""
        return Size.dimension(list(self.inputs).index(tensor), axis)

    def sides(self, tensor: str) -> tuple[Size, Size, Size]:
        """Batch, height and width of a feature map."""
        return self.side(tensor, 0), self.side(tensor, 1), self.side(tensor, 2)

    def width(self, tensor: str) -> int:
        """Last dimension of an input, which is always known."""
        value = self.inputs[tensor].shape[-1]
        assert value is not None
        return value

    def element_size(self, tensor: str) -> int:
        return 4 if self.inputs[tensor].dtype == "fp32" else 2


@dataclasses.dataclass(frozen=True)
class Output:
    """An output of a node.

    Attributes:
        argument: of the kernel.
        dtype: a key of `ELEMENT_TYPES`.
        shape: its dimensions.

    Outputs beyond those that the operator's node has are memory that one launch leaves for the next.
    """

    argument: str
    dtype: str
    shape: tuple[Number, ...]


@dataclasses.dataclass(frozen=True)
class Launch:
    """Launch of a kernel.

    Attributes:
        kernel: a function of Triton.
        outputs: of the node, in order; all launches of a node have the same.
        integers: 32-bit arguments by name.
        constants: compile-time arguments by name; arguments that are nowhere else are None.
        grid: programs in x, y and z.
        warps: of a program.
        registers: most of a thread; None leaves them to the compiler.
        given: the kernel's names of inputs that the node has under another one.
    """

    kernel: Any
    outputs: tuple[Output, ...]
    integers: Mapping[str, Number]
    constants: Mapping[str, Any]
    grid: tuple[Number, ...]
    warps: int
    registers: int | None = None
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The kernel of an operator.

    Attributes:
        inputs: the kernel's names of the node's inputs, in order; more names than a node has inputs do no harm.
        launch: takes a node and a compute capability, 10 * major + minor; returns a launch, or several, one after the other.
        constant: inputs that do not depend on the size of the picture although they may be no initialisers, and those without which
            the launch cannot be told.
        prepare: changes the operator's nodes in a model, in place, to what the library has, for compute capabilities; None: they are
            it already.
        body: name of a function, node and opset of the model -> the function that computes what the prepared node does; None: the
            node's own function does.
    """

    inputs: tuple[str, ...]
    launch: Callable[[Node, int], Launch | tuple[Launch, ...]]
    constant: tuple[str, ...] = ()
    prepare: "Callable[[ModelProto, Sequence[int]], None] | None" = None
    body: "Callable[[str, NodeProto, int], FunctionProto] | None" = None

    def launches(self, node: Node, capability: int) -> tuple[Launch, ...]:
        """What a node launches on GPUs of a compute capability."""
        made = self.launch(node, capability)
        return made if isinstance(made, tuple) else (made,)
