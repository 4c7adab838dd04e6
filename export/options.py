"""What an export can be asked for, and what does not go together."""

import dataclasses

from flashrib.export.operators.operator import NONE
from flashrib.export.operators.table import body_names, opset_of_body
from flashrib.runtime.errors import UsageError

PRECISIONS = ("fp32", "fp16", "bf16")
IO = ("fp32", "fp16")
OPSETS = (18, 20, 23)
OPSET = 20  # the highest that vs-mlrt and chaiNNer take; has Gelu as one operator
BF16_OPSET = 23  # Conv takes bfloat16 from 22 on


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Properties of an exported file.

    Attributes:
        precision: what the file computes in: "fp32", "fp16" or "bf16".
        io: type of `input` and `output`: "fp32" or "fp16".
        tile: (H, W) of the input in pixels; None leaves both dynamic.
        batch: pictures of a run, static, >= 1.
        opset: ONNX opset, 18, 20 or 23; None takes 20, and 23 where the precision or the body of attention needs it.
        attention: body of the attention operators (`flashrib.export.operators.bodies`); None takes the one that the operator's row in
            the table names for the precision.
        clamp: bound the output to 0..1.
        noise: for networks that take noise: "input", an input of its own; "none", zeros; or a seed, whose noise is inside the file.
        inline: put the bodies of attention into the graph in place of functions, for runtimes that know no functions; the body is
            "standard" unless `attention` names another. Engines and calibration need the functions.

    Raises:
        UsageError: a value that is not possible, or two that contradict each other.
    """

    precision: str = "fp32"
    io: str = "fp32"
    tile: tuple[int, int] | None = None
    batch: int = 1
    opset: int | None = None
    attention: str | None = None
    clamp: bool = False
    inline: bool = False
    noise: str | int = "input"

    def __post_init__(self) -> None:
        choices = (
            ("precision", PRECISIONS),
            ("io", IO),
            ("opset", (None, *OPSETS)),
            ("attention", (None, *body_names(), NONE)),
        )
        for name, possible in choices:
            if getattr(self, name) not in possible:
                text = ", ".join(str(value) for value in possible if value is not None)
                raise UsageError(f"{name} {getattr(self, name)!r} is not one of {text}")
        if self.inline and self.attention == NONE:
            raise UsageError(f"--inline: --attention {NONE} leaves no body to put into the graph")
        if self.batch < 1:
            raise UsageError(f"batch is {self.batch}, but it must be at least 1")
        if self.opset is not None:
            if self.opset < BF16_OPSET and self.precision == "bf16":
                raise UsageError(f"opset {self.opset} has no convolution in bf16: use --opset {BF16_OPSET}")
            if self.opset < opset_of_body(self.attention):
                raise UsageError(
                    f"opset {self.opset} is too low for --attention {self.attention}: use --opset {opset_of_body(self.attention)}, or"
                    " --attention standard"
                )

    @property
    def chosen_opset(self) -> int:
        usual = BF16_OPSET if self.precision == "bf16" else OPSET
        return self.opset or max(usual, opset_of_body(self.attention))
