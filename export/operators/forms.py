"""Bodies of the operator in an ONNX file, exchanged by one call.

A node `flashrib::WindowAttention` runs anywhere because its body, a model-local function, is inlined by whoever loads the file:

    onnxruntime   ONNX Runtime's fused MultiHeadAttention: the form for ONNX Runtime on the CPU
    standard      MatMul, Softmax, MatMul: for every runtime
    attention     ONNX's Attention with one head size for q, k and v: the form that TensorRT fuses from 10.14 on; needs opset 23
    padded        the operators of `standard` with one head size for q, k and v: the form that TensorRT fuses before 10.14
    none          no body: the node is a plugin's, which the runtime must have
"""

import onnx
import onnx.parser
from onnx import FunctionProto, ModelProto, NodeProto

from flashrib.export.operators.window.bodies import (
    attention_native,
    attention_onnxruntime,
    attention_padded,
    attention_standard,
    geometry,
    position_codes,
)
from flashrib.runtime.errors import UsageError

DOMAIN = "flashrib"
NONE = "none"
FORMS = {
    "onnxruntime": attention_onnxruntime,
    "standard": attention_standard,
    "attention": attention_native,
    "padded": attention_padded,
}


def with_attention_form(model: ModelProto, form: str) -> ModelProto:
    """Return a copy of `model` whose attention nodes have the body `form`, one of `FORMS` or "none", in place of the one they had.

    A form that needs a higher opset than the model's raises it: up to 23, every operator that our graphs use keeps its meaning.
    Where a static picture consists of whole windows, the body does without their completion.

    Raises:
        UsageError: no such form.
    """
    if form not in (*FORMS, NONE):
        raise UsageError(f"unknown form {form!r} of the attention operator: choose one of {', '.join((*FORMS, NONE))}")
    result = ModelProto()
    result.CopyFrom(model)
    versions = {o.domain: o.version for o in result.opset_import if o.domain in ("", DOMAIN)}
    for domain, version in FORMS[form].OPSETS.items() if form in FORMS else ():
        versions[domain] = max(version, versions.get(domain, 0))
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]
    functions = [_function(position_codes.BODY, versions[""])]
    if form != NONE:
        functions.append(_attention(form, versions, _geometry(result)))
    del result.functions[:]
    result.functions.extend(functions)
    del result.opset_import[:]
    result.opset_import.extend(opsets)
    onnx_opset = [o for o in opsets if o.domain == ""]
    result.ir_version = max(result.ir_version, onnx.helper.find_min_ir_version_for(onnx_opset))
    return result


def attention_nodes(model: ModelProto) -> list[NodeProto]:
    """Return the nodes of the attention operator, in order."""
    return [node for node in model.graph.node if node.op_type == "WindowAttention" and node.domain == DOMAIN]


def _geometry(model: ModelProto) -> tuple[str, str]:
    """Text that completes the map to whole windows, and text that crops it again, as the model's layers and size need them."""
    attributes = [
        {name: onnx.helper.get_node_attr_value(node, name) for name in ("window", "shift")}
        for node in attention_nodes(model)
    ]
    if any(any(values["shift"]) for values in attributes):
        return geometry.COMPLETE_SHIFTED, geometry.CROP_SHIFTED
    height, width = (d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[2:])  # 0: dynamic
    windows = [values["window"] for values in attributes]
    if height and width and all(height % rows == 0 and width % columns == 0 for rows, columns in windows):
        return geometry.WHOLE, geometry.WHOLE_CROP
    return geometry.COMPLETE, geometry.CROP


def _attention(form: str, versions: dict[str, int], completion: tuple[str, str]) -> FunctionProto:
    imports = "".join(f', "{domain}": {version}' for domain, version in versions.items() if domain not in ("", DOMAIN))
    head = (
        f'<opset_import: ["": {{opset}}{imports}], domain: "{DOMAIN}">\n'
        "WindowAttention <window, num_heads, shift> (qkv, pos_q, pos_k) => (out)\n{"
    )
    complete, crop = completion
    parts = (head, geometry.SIZES, complete, geometry.PARTITION, FORMS[form].CORE, geometry.MERGE, crop, "}")
    return _function("".join(parts), versions[""])


def _function(text: str, opset: int) -> FunctionProto:
    return onnx.parser.parse_function(text.replace("{opset}", str(opset)))
