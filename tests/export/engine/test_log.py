"""Lines as TensorRT-RTX 1.7 prints them, and the inspector's JSON as TensorRT documents it."""

import json

import pytest

from flashrib.export.engine.log import (
    EngineLayer,
    engine_layers,
    inspected_layers,
    max_scratch,
    scratch_by_layer,
)

MEMORY = [
    "Layer: {ForeignNode[node_a...node_b]} Host Persistent: 80 bytes Device Persistent: 0 bytes Scratch Memory: 600 bytes",
    "Layer: conv Host Persistent: 0 bytes Device Persistent: 0 bytes Scratch Memory: 700 bytes",
    "Total Host Persistent Memory: 80 bytes",
    "Max Scratch Memory: 146798592 bytes",
    "Total Activation Memory: 146798592 bytes",
]

LAYERS = """Engine Layer Information:

Layers:
Name: node_of_sc_711_myl0_27, LayerType: gemm, Inputs: [ { Name: q.1_myl0, Dimensions: [768,256,32], Strides: [8192,32,1], \
StrideOrder: [2,1,0], Datatype: Half, Format: (Linear) Row major linear format }, { Name: k, Dimensions: [768,32,256], \
Strides: [8192,256,1], StrideOrder: [2,1,0], Datatype: Half, Format: (Linear) Row major linear format }], Constants: [ { Name: \
alpha_myl0, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], \
Outputs: [ { Name: __mye376537_myl0, Dimensions: [768,256,256], Strides: [65536,256,1], StrideOrder: [2,1,0], Datatype: Half, \
Format: (Linear) Row major linear format }], TacticName: STUB, StreamId: 0, Metadata: [ONNX Layer: node_of_sc | \
node__symbolic_1 (WindowAttention)]
Name: fused, LayerType: kgen, Inputs: [], Constants: [], Outputs: [ { Name: y, Dimensions: [E0,256,32], Strides: [1] }], \
TacticName: t, StreamId: 0, Metadata: [ONNX Layer: node_a][ONNX Layer: node_b]

I/O Tensors:
 Name: input, IOMode: Input, DataType: Half, Dimensions: [1,3,256,256], Location: Device"""


def test_memory() -> None:
    assert max_scratch(MEMORY) == 146798592
    assert max_scratch(["Max Scratch Memory: 5 bytes", *MEMORY]) == 146798592
    assert max_scratch(["nothing"]) is None
    assert scratch_by_layer(MEMORY) == {"{ForeignNode[node_a...node_b]}": 600, "conv": 700}


def test_layers() -> None:
    assert engine_layers(["other", LAYERS]) == [
        EngineLayer(
            "node_of_sc_711_myl0_27",
            ((768, 256, 32), (768, 32, 256), (768, 256, 256)),
            ("node__symbolic_1", "node_of_sc"),
            ("Half", "Half"),
        ),
        EngineLayer("fused", ((-1, 256, 32),), ("node_a", "node_b")),
    ]


@pytest.mark.parametrize(
    ("information", "expected"),
    [
        (
            {
                "Layers": [
                    {
                        "Name": "gemm",
                        "Inputs": [{"Name": "q", "Dimensions": [2, 4, 3], "Format/Datatype": "FP8"}],
                        "Outputs": [{"Name": "s", "Dimensions": [2, 4, 4]}, {"Name": "no shape"}],
                        "Metadata": "[ONNX Layer: inner | outer (WindowAttention)]",
                    }
                ]
            },
            [EngineLayer("gemm", ((2, 4, 3), (2, 4, 4)), ("outer", "inner"), ("FP8",))],
        ),
        ({"Layers": ["names", "alone"]}, []),
        ({}, []),
    ],
)
def test_inspector(information: dict[str, object], expected: list[EngineLayer]) -> None:
    assert inspected_layers(json.dumps(information)) == expected
