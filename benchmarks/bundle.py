"""Make the files of a bundled model from the weights of a training run: `python benchmarks/bundle.py x4=run/weights.safetensors ...`.

`photo=FIRST.safetensors,SECOND.safetensors@0.2` mixes two runs from the same start: 80 % of the first weights and 20 % of the second.

The affine part of each LayerNorm goes into the 1x1 convolution after it, where nothing else reads the map, and the weights are rounded to
what half precision holds. What is folded is then exact in half precision too, so both files, which are float32, take half of their size
when they are compressed.
"""

import argparse
import lzma
from pathlib import Path

import torch
from torch import nn

from flashrib.export.to_onnx import onnx_from_network, save_onnx
from flashrib.model.architectures.sst.network import SSTLayer
from flashrib.model.checkpoint import load_model, save_safetensors
from flashrib.model.folding import fold_norm, matrix
from flashrib.model.network import Network, Upscaler
from flashrib.runtime.artifacts.bundled import BUNDLED, SUMS
from flashrib.runtime.artifacts.files import sha256_of

FOLDER = Path(__file__).parent.parent / "runtime" / "weights"
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 2, "pb": 2}]  # numbers of four bytes


def normalise(network: Upscaler) -> None:
    """Move the affine parts of LayerNorms into convolutions; what the network computes stays the same up to rounding."""
    for layer in network.modules():
        if isinstance(layer, SSTLayer):
            followers = [(layer.norm_ffn, layer.ffn.proj)]
            if (
                layer.attn.gate is None
            ):  # a gate begins with a 3x3 convolution, whose padding comes after the affine part
                followers.append((layer.norm_attn, layer.attn.to_qkv))
            for norm, convolution in followers:
                weight, bias = fold_norm(norm, matrix(convolution))
                convolution.weight.data.copy_(weight.view_as(convolution.weight))
                convolution.bias.data.copy_(bias)
                nn.init.ones_(norm.weight)
                nn.init.zeros_(norm.bias)


def read(source: str) -> Network:
    """The network of `WEIGHTS` or of `WEIGHTS,OTHER@SHARE`, in float64."""
    first, _, other = source.partition(",")
    network = load_model(first).double()
    if other:
        path, _, share = other.partition("@")
        with torch.no_grad():
            for parameter, added in zip(network.parameters(), load_model(path).double().parameters(), strict=True):
                parameter.lerp_(added, float(share))
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="+", metavar="NAME=WEIGHTS[,OTHER@SHARE]", help=f"NAME one of {', '.join(BUNDLED)}"
    )
    for run in parser.parse_args().runs:
        name, _, source = run.partition("=")
        row = BUNDLED[name]
        network = read(source)
        assert isinstance(network, Upscaler)
        normalise(network)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(parameter.half())
        network.float()
        weights, model = FOLDER / row.weights, FOLDER / row.model
        save_safetensors(weights, network, {})
        save_onnx(onnx_from_network(network, source_sha256=sha256_of(weights)), model)
        sums = FOLDER / SUMS
        lines = {line.split()[1]: line for line in sums.read_text().splitlines()} if sums.exists() else {}
        for path in (weights, model):
            lines[path.name] = f"{sha256_of(path)}  {path.name}"
            packed = path.with_name(f"{path.name}.xz")
            packed.write_bytes(lzma.compress(path.read_bytes(), filters=FILTERS))
            print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, compressed {packed.stat().st_size / 1e6:.2f} MB")
            path.unlink()
        sums.write_text("".join(f"{lines[name]}\n" for name in sorted(lines)))


if __name__ == "__main__":
    main()
