"""What an engine is built for, and what does not go together."""

import dataclasses
import re

from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import UsageError
from flashrib.runtime.nvidia.flavours import flavour_named

USUAL_SIDE = 256  # of a tile, in pixels of the input
ATTENTION = ("native", "plugin")
Shapes = tuple[Side, Side, Side]


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """Properties of an engine.

    Attributes:
        flavour: "rtx" or "tensorrt".
        targets: what GPUs it shall run on. rtx: "sm86", "sm89", ... or "current"; empty: every one that TensorRT-RTX supports by
            default. tensorrt: empty or "current" for the GPU of this machine, or "ampere+" for compute capability 8.0 and later.
        smallest, usual, largest: (H, W) of the input in pixels; where only one is given, or all are alike, the engine takes this
            size alone and is the fastest; None everywhere: a size that fits the model.
        workspace: MB of the GPU's memory that the builder may plan with; None: all.
        version_compatible: later versions of TensorRT may load the engine (tensorrt alone).
        attention: "native": by layers of TensorRT, which fuses them; "plugin": by flashrib's own kernel (tensorrt alone).

    Raises:
        UsageError: a value that is not possible, or two that contradict each other.
    """

    flavour: str
    targets: tuple[str, ...] = ()
    smallest: Side | None = None
    usual: Side | None = None
    largest: Side | None = None
    workspace: int | None = None
    version_compatible: bool = False
    attention: str = "native"

    def __post_init__(self) -> None:
        flavour_named(self.flavour)
        if self.workspace is not None and self.workspace < 1:
            raise UsageError(f"the workspace is {self.workspace} MB, but it must be at least 1")
        if len(set(self.targets)) < len(self.targets):
            raise UsageError(f"a target is named twice: {','.join(self.targets)}")
        if self.flavour == "rtx":
            for target in self.targets:
                if target != "current" and not re.fullmatch(r"sm[0-9]{2,3}", target):
                    raise UsageError(f"target {target!r} is neither a compute capability such as sm86 nor current")
            if "current" in self.targets and len(self.targets) > 1:
                raise UsageError(f"the target current goes with no other: {','.join(self.targets)}")
            if self.version_compatible:
                raise UsageError("--version-compatible: TensorRT-RTX has no such engines; use --flavour tensorrt")
            if self.attention != "native":
                raise UsageError("--attention plugin: TensorRT-RTX takes no such plugins; use --flavour tensorrt")
        elif self.targets not in ((), ("current",), ("ampere+",)):
            raise UsageError(
                f"target {','.join(self.targets)!r}: TensorRT builds on the GPU that the engine runs on: use --target current, or"
                " ampere+ for all GPUs from compute capability 8.0 on"
            )
        if self.attention not in ATTENTION:
            raise UsageError(f"attention {self.attention!r} is not one of {', '.join(ATTENTION)}")
        if self.attention == "plugin" and self.version_compatible:
            raise UsageError(
                "--version-compatible: not with --attention plugin, whose engines run in the version that built them"
            )

    def shapes(self, model: ModelInfo, static: Side | None) -> Shapes:
        """Return (smallest, usual, largest) for a model, `static` being the only size that its file takes, if there is one.

        Raises:
            UsageError: sizes that the model does not take, or that are not in order.
        """
        given = [size for size in (self.smallest, self.usual, self.largest) if size is not None]
        usual = self.usual or (given[-1] if given else static or usual_size(model))
        shapes = (self.smallest or usual, usual, self.largest or usual)
        text = ", ".join(f"{height}x{width}" for height, width in dict.fromkeys(shapes))
        if any(
            low > high
            for axis in (0, 1)
            for low, high in ((shapes[0][axis], shapes[1][axis]), (shapes[1][axis], shapes[2][axis]))
        ):
            raise UsageError(f"the sizes {text} are not in the order --min, --opt, --max on both sides")
        if min(shapes[0]) < model.minimum:
            raise UsageError(
                f"{text}: a side is below {model.minimum} pixels, the least that {model.architecture} takes"
            )
        if static is not None and shapes != (static, static, static):
            raise UsageError(
                f"the ONNX file takes {static[0]}x{static[1]} only, not {text}: leave --min, --opt and --max out, or export it"
                " with --dynamic"
            )
        return shapes


def usual_size(model: ModelInfo) -> Side:
    """Largest size up to 256x256 that consists of whole windows: nothing is computed that is thrown away."""
    side = max(USUAL_SIDE // model.alignment, 1) * model.alignment
    return side, side
