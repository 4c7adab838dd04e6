"""What the rest of `export` must know about an operator of the domain `flashrib`: one `Operator` each, all of them in `table.py`.

Imports neither onnx nor torch, so that options and the command line may ask which bodies there are. docs/howto/add-an-operator.md is the
walk through these classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto

DOMAIN = "flashrib"
NONE = "none"  # the name of no body at all: the node is left to a plugin or a kernel that the runtime has
Side = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where functions are written to.

    Attributes:
        model: the model that they become part of; everything but the bodies is as it will be. A body that differs from node to node
            may set `overload` of `nodes`, and of its functions accordingly (ONNX IR version 10 or later).
        nodes: the operator's nodes in its graph, in order.
        opsets: domain -> version that the functions may use, those of `Body.opsets` included.
    """

    model: ModelProto
    nodes: Sequence[NodeProto]
    opsets: Mapping[str, int]

    def head(self, signature: str) -> str:
        """Begin of a function as ONNX text, such as `head("Twice <times> (x) => (y)")`; nodes in braces follow."""
        imports = ", ".join(f'"{domain}": {version}' for domain, version in self.opsets.items() if domain != DOMAIN)
        return f'<opset_import: [{imports}], domain: "{DOMAIN}">\n{signature}\n'


Functions = Callable[[Place], "Sequence[FunctionProto | str]"]


@dataclasses.dataclass(frozen=True)
class Body:
    """One way to compute an operator by others.

    Attributes:
        functions: gives the model-local functions that the operator's nodes call, as ONNX text or as messages; one for all nodes, or
            one per overload.
        opsets: domain -> least version that it needs.
    """

    functions: Functions
    opsets: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Auxiliary:
    """A function that nodes beside the operator call, the same whatever body the operator has, such as constants computed at load.

    Attributes:
        op_type: name of the function and of its nodes.
        functions: see `Body`.
        low: True where it computes in the precision of the file, False where in float32.
    """

    op_type: str
    functions: Functions
    low: bool = False


@dataclasses.dataclass(frozen=True)
class AttentionLayer:
    """An attention layer of a model, as the check of an engine's fusion wants it: what an unfused one would store.

    Attributes:
        name: of its node.
        what: a few words for messages, such as "window 8x8".
        tokens: N, a side of its N x N scores.
        heads: number of heads, each with scores of its own.
        window: (rows, columns) of the windows that the feature map is padded to and cut into, each with scores of its own; None: it
            is not cut.
    """

    name: str
    what: str
    tokens: int
    heads: int
    window: Side | None = None

    def score_maps(self, size: Side) -> int:
        """Number of N x N score matrices of an image of `size` (H, W), those of the heads not counted."""
        if self.window is None:
            return 1
        return math.prod(-(-side // step) for side, step in zip(size, self.window, strict=True))

    def positions(self, size: Side) -> int:
        """Positions of the layer's feature map, padded, for an image of `size` (H, W)."""
        return self.score_maps(size) * (self.tokens if self.window is None else math.prod(self.window))


@dataclasses.dataclass(frozen=True)
class Plugin:
    """The operator as a plugin of TensorRT, compiled ahead of time.

    Attributes:
        registration: module that registers it when it is imported.
        sources: modules, and packages with all modules in them, that decide what is compiled: a cached engine is not taken once one
            of them has changed.
        prepare: module whose function `prepare(model, capability)` changes the operator's nodes, in place, to what is registered; None:
            they are it already.
    """

    registration: str
    sources: tuple[str, ...]
    prepare: str | None = None


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator: its nodes are `flashrib::<op_type>`, and their body can be exchanged (`flashrib.export.operators.bodies`).

    Attributes:
        op_type: name of its nodes and of its function.
        attributes: what a node states beside its inputs.
        bodies: name -> body. "standard" is there for every operator; "none" is not listed, and possible for all.
        default: precision -> the body that an export takes where none is asked for; "standard" where it is not named.
        engine_body: the body that TensorRT and TensorRT-RTX are given.
        older_engine_body: the same for TensorRT before 10.14, which has no `Attention`.
        auxiliary: functions that its models call as well.
        float_inputs: inputs that stay float32 in every precision, by index.
        float_outputs: outputs that are float32 in every precision, by index.
        layer: node and model -> what an unfused layer would store; None where no body stores anything that matters, so that nothing
            is to be checked.
        plugin: of TensorRT, None where there is none.
        onnxruntime_kernel: module whose `KERNEL` says how its kernel for ONNX Runtime is launched (`flashrib.export.onnxruntime.launch`),
            None where there is none.
    """

    op_type: str
    attributes: tuple[str, ...]
    bodies: Mapping[str, Body]
    default: Mapping[str, str] = dataclasses.field(default_factory=dict)
    engine_body: str = "standard"
    older_engine_body: str = "standard"
    auxiliary: tuple[Auxiliary, ...] = ()
    float_inputs: frozenset[int] = frozenset()
    float_outputs: frozenset[int] = frozenset()
    layer: Callable[[NodeProto, ModelProto], AttentionLayer] | None = None
    plugin: Plugin | None = None
    onnxruntime_kernel: str | None = None
