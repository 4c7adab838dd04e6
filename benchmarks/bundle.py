"""Make the bundled ONNX file from the bundled weights: `python benchmarks/bundle.py`."""

from flashrib.export.to_onnx import onnx_from_network, save_onnx
from flashrib.model.checkpoint import load_model, sha256_of
from flashrib.runtime.artifacts.bundled import default_model, default_weights


def main() -> None:
    weights = default_weights()
    path = weights.with_name("2x_SSTlight_fp32.onnx")
    save_onnx(onnx_from_network(load_model(weights), source_sha256=sha256_of(weights)), path)
    print(
        f"{default_model()}: {path.stat().st_size / 1e6:.2f} MB, from {weights.name}: {weights.stat().st_size / 1e6:.2f} MB"
    )


if __name__ == "__main__":
    main()
