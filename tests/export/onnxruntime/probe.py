"""Registers a library in ONNX Runtime on the CPU with a stand-in for the driver; `test_library.py` runs this file, see there.

python probe.py LIBRARY [with_body]
"""

import sys

import numpy as np
import onnx.parser
import onnxruntime

MODEL = """
<ir_version: 9, opset_import: ["": 20, "flashrib": 1]>
probe (float[B, H, W, 4] x) => (float[B, H, W, 4] y) {
  z = flashrib.probe_1 (x)
  list = Constant <value: tensor = int32[2] {1, 2}> ()
  w, memory = flashrib.probe_2 (z, list, list)
  y = Identity (w)
}
"""
BODIES = (
    '<opset_import: ["": 20], domain: "flashrib"> probe_1 (x) => (out0) { out0 = Neg (x) }',
    '<opset_import: ["": 20], domain: "flashrib"> probe_2 (x, a, b) => (out0, out1) { out0 = Neg (x) out1 = Neg (x) }',
)


def main(library: str, body: str = "") -> None:
    model = onnx.parser.parse_model(MODEL)
    if body:
        model.functions.extend(map(onnx.parser.parse_function, BODIES))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        options.register_custom_ops_library(library)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for height, width in ((2, 3), (5, 4), (2, 3)):
            x = np.arange(height * width * 4, dtype=np.float32).reshape(1, height, width, 4)
            (y,) = session.run(None, {"x": x})
            # integers: pixels and channels; grid: ceil(pixels / 4) in x of the first operator, 1 and 2 of the launches of the second
            wanted = x + 3 * (1000 * height * width + 4) + -(-height * width // 4) + 3
            np.testing.assert_array_equal(y, wanted)
    except Exception as error:
        print(" ".join(str(error).split()))
        return
    print("right")


if __name__ == "__main__":
    main(*sys.argv[1:])
