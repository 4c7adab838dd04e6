"""Names of the output's sizes that a reader understands.

PyTorch derives the size of an output from what the graph does, and where it pads and cuts the name is a formula, such as
"Min(2*height, 128*(((height + 63)//64)))". An image that is `scale` times as large has the size "2*height", and is called so.
"""

import re

from onnx import ModelProto

_PLAIN = re.compile(r"(\d+\*)?\w+")


def plain_sizes(model: ModelProto, scale: int) -> None:
    """Rename formulas among the height and width of the output in place, wherever they stand; others stay.

    Args:
        model: whose first input and whose output are images, or which has nothing to rename.
        scale: the output is so many times as large as the input.
    """
    before = model.graph.input[0].type.tensor_type.shape.dim
    after = model.graph.output[0].type.tensor_type.shape.dim
    if len(before) != 4 or len(after) != 4:
        return
    names = {
        large.dim_param: small.dim_param if scale == 1 else f"{scale}*{small.dim_param}"
        for small, large in zip(before[2:], after[2:], strict=True)
        if large.dim_param and small.dim_param and not _PLAIN.fullmatch(large.dim_param)
    }
    for value in (*model.graph.value_info, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]
