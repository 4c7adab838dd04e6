"""Bodies of the operator in an ONNX file, exchanged by one call.

A node `flashrib::WindowAttention` runs anywhere because its body, a model-local function, is inlined by whoever loads the file:

    onnxruntime   ONNX Runtime's fused MultiHeadAttention: the form for ONNX Runtime on the CPU
    standard      MatMul, Softmax, MatMul: for every runtime
"""

import onnx
import onnx.parser
from onnx import FunctionProto, ModelProto

from flashrib.export.functions import attention_onnxruntime, attention_standard, geometry, position_codes
from flashrib.runtime.errors import UsageError

DOMAIN = "flashrib"
FORMS = {"onnxruntime": attention_onnxruntime, "standard": attention_standard}


def with_attention_form(model: ModelProto, form: str) -> ModelProto:
    """Return a copy of `model` whose attention nodes have the body `form`, one of `FORMS`, in place of the one they had.

    Raises:
        UsageError: no such form.
    """
    if form not in FORMS:
        raise UsageError(f"unknown form {form!r} of the attention operator: choose one of {', '.join(FORMS)}")
    result = ModelProto()
    result.CopyFrom(model)
    nodes = [node for node in result.graph.node if node.op_type == "WindowAttention" and node.domain == DOMAIN]
    shifted = any(any(onnx.helper.get_node_attr_value(node, "shift")) for node in nodes)
    opset = next(o.version for o in result.opset_import if o.domain == "")
    functions = [_function(position_codes.BODY, opset), _attention(form, opset, shifted)]
    del result.functions[:]
    result.functions.extend(functions)
    versions = {o.domain: o.version for o in result.opset_import if o.domain in ("", DOMAIN)} | FORMS[form].OPSETS
    del result.opset_import[:]
    result.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
    return result


def _attention(form: str, opset: int, shifted: bool) -> FunctionProto:
    imports = "".join(f', "{domain}": {version}' for domain, version in FORMS[form].OPSETS.items())
    head = (
        f'<opset_import: ["": {{opset}}{imports}], domain: "{DOMAIN}">\n'
        "WindowAttention <window, num_heads, shift> (qkv, pos_q, pos_k) => (out)\n{"
    )
    complete = geometry.COMPLETE_SHIFTED if shifted else geometry.COMPLETE
    crop = geometry.CROP_SHIFTED if shifted else geometry.CROP
    parts = (head, geometry.SIZES, complete, geometry.PARTITION, FORMS[form].CORE, geometry.MERGE, crop, "}")
    return _function("".join(parts), opset)


def _function(text: str, opset: int) -> FunctionProto:
    return onnx.parser.parse_function(text.replace("{opset}", str(opset)))
