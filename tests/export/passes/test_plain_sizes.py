"""Formulas among the output's sizes become plain names; everything else stays."""

import onnx

from flashrib.export.passes.plain_sizes import plain_sizes

FORMULA = "Min(2*{0}, 128*((({0} + 63)//64)))"


def model(height: str, width: str) -> onnx.ModelProto:
    graph = onnx.parser.parse_graph(
        "g (float[1,3,height,width] input) => (float[1,3,h,w] output) { output = Identity(input) }"
    )
    for value in (graph.output[0], graph.value_info.add(name="inner")):
        value.CopyFrom(graph.output[0])
        for index, name in ((2, height), (3, width)):
            value.type.tensor_type.shape.dim[index].dim_param = name
    return onnx.helper.make_model(graph)


def sizes(value: onnx.ValueInfoProto) -> list[str]:
    return [dimension.dim_param for dimension in value.type.tensor_type.shape.dim[2:]]


def test_formulas_are_renamed_everywhere() -> None:
    made = model(FORMULA.format("height"), FORMULA.format("width"))
    plain_sizes(made, 2)
    assert [sizes(value) for value in (*made.graph.output, *made.graph.value_info)] == [["2*height", "2*width"]] * 2


def test_at_scale_1_the_output_is_as_large_as_the_input() -> None:
    made = model(FORMULA.format("height"), FORMULA.format("width"))
    plain_sizes(made, 1)
    assert sizes(made.graph.output[0]) == ["height", "width"]


def test_plain_names_stay() -> None:
    made = model("2*height", "w")
    before = made.SerializeToString()
    plain_sizes(made, 2)
    assert made.SerializeToString() == before
