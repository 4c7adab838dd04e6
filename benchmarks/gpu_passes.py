"""The passes of the GPU network's layers one by one, on one CUDA GPU.

    python benchmarks/gpu_passes.py [--presets sst-light sst-plus ...] [--size 180x320] [--dtype fp16|bf16] [--tune] [--eight-bit]

Times are medians of CUDA graphs that repeat a pass, on random maps; small maps stay in the GPU's cache as they do in the network. "floor"
is the time that the maps' bytes take at 4.3 TB/s, each read or written once.

--tune: candidates for `model/gpu/tuning.py` instead, microseconds; the best go there by hand.
--eight-bit: the layers' products by the library in fp16, in FP8 (torch._scaled_mm, one scale per tensor) and in INT8 (torch._int_mm,
    sums in int32 that nothing scales back yet). "cast" is the pass over the activation that makes it 8 bits wide where no other pass can.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from triton.testing import do_bench_cudagraph

from flashrib.model import PRESETS, build_model
from flashrib.model.architectures.sst.gpu import GpuSST, Layer
from flashrib.model.gpu import gpu_network, pointwise, spatial
from flashrib.model.gpu.maps import Maps
from flashrib.model.gpu.passes import Matmul, Wide
from flashrib.model.gpu.tuning import CHUNK, Strip, Tile
from flashrib.model.sizes import round_up

NAMES = tuple(name for name in PRESETS if name != "sst-real")  # which takes noise as well
BYTES = 4.3e12  # per second, measured on an H200
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
TILES = [
    Tile(64, 4, 1),
    Tile(128, 4, 1),
    Tile(128, 8, 1),
    Tile(64, 4, 2),
    Tile(64, 4, 3),
    Tile(64, 4, 4),
    Tile(64, 8, 2),
    Tile(64, 8, 3),
    Tile(128, 8, 2),
    Tile(128, 8, 3),
    Tile(32, 4, 3),
]
STRIPS = [
    Strip(4, 4, 64, 4), Strip(4, 8, 64, 4), Strip(8, 4, 64, 4), Strip(6, 4, 64, 4), Strip(8, 2, 64, 2), Strip(4, 8, 64, 8),
    Strip(8, 16, 32, 4), Strip(8, 8, 32, 4), Strip(4, 16, 32, 4), Strip(8, 4, 32, 2), Strip(8, 16, 16, 4), Strip(4, 16, 16, 4),
]  # fmt: skip


def microseconds(run: Callable[[], Any]) -> float:
    with torch.cuda.stream(torch.cuda.Stream()):
        result: float = do_bench_cudagraph(run, rep=25, return_mode="median")
    return 1e3 * result


class RandomMaps:
    """Random maps of one size."""

    def __init__(self, size: tuple[int, int], dtype: torch.dtype) -> None:
        self.size, self.dtype = size, dtype

    def __call__(self, width: int) -> Tensor:
        return torch.randn(1, *self.size, width, device="cuda", dtype=self.dtype)


def widths(layer: Layer) -> tuple[int, int, int]:
    """Widths in memory of x, of heads and of the FFN."""
    assert isinstance(layer.gate, Matmul)
    assert not isinstance(layer.middle, Matmul)
    return round_up(layer.middle.dim, 8), layer.gate.weight.shape[0], layer.middle.out_width


def passes(layer: Layer, last: Layer, maps: RandomMaps) -> Iterator[tuple[str, Callable[[], Any], int]]:
    """Name, call and channels moved per pixel of the passes of a layer, and of the end of a block."""
    dim, inner, hidden = widths(layer)
    n, x, o, u, qkv, logits = (maps(width) for width in (dim, dim, inner, hidden, 3 * inner, inner))
    gate: Any = layer.gate
    yield "gate: depthwise, matmul", lambda: gate(Maps(source=n)), 3 * dim + inner
    yield "attention", lambda: layer.attention(qkv, logits), 5 * inner
    still(layer.middle, layer.end, last.end)
    yield "matmul, sum, norm, matmul, gelu", lambda: layer.middle(Maps(source=o, residual=x)), inner + 2 * dim + hidden
    yield (
        "depthwise, matmul, sum, norm, qkv",
        lambda: layer.end(Maps(source=u, residual=x)),
        3 * hidden + 3 * dim + (dim if isinstance(layer.end, Wide) else 0) + 3 * inner,
    )
    yield "depthwise, matmul, sum", lambda: last.end(Maps(source=u, residual=x)), 3 * hidden + 2 * dim


def still(*passes: nn.Module) -> None:
    """Matmuls that are added in place add nothing, or x would grow from run to run."""
    for each in passes:
        if isinstance(each, Wide) and each.in_place and each.sum_weight is not None:
            each.sum_weight.zero_()


def pass_table(name: str, network: GpuSST, maps: RandomMaps) -> None:
    pixels = maps.size[0] * maps.size[1]
    layers: Any = network.blocks[0].layers
    for label, run, channels in passes(layers[1], layers[-1], maps):
        time, floor = microseconds(run), 1e6 * 2 * channels * pixels / BYTES
        print(f"| {name} | {label} | {time:.1f} | {floor:.1f} | {floor / time:.0%} |", flush=True)


def tune(name: str, network: GpuSST, maps: RandomMaps) -> None:
    """Every candidate for the passes that are kernels of ours."""
    layers: Any = network.blocks[0].layers
    layer: Layer = layers[1]
    dim, inner, hidden = widths(layer)
    x, o, u = maps(dim), maps(inner), maps(hidden)
    gate: Any = layer.gate
    end: Any = layer.end
    of_gate, of_end = gate.depthwise, end.depthwise
    depthwise = {f"depthwise of {dim}": lambda: of_gate(x), f"depthwise of {hidden}, gelu": lambda: of_end(u)}
    chains = {"matmul, sum, norm, matmul, gelu": lambda: layer.middle(Maps(source=o, residual=x))}
    end.depthwise = None  # the rest alone
    chains["matmul, sum, norm, qkv"] = lambda: end(Maps(source=u, residual=x))
    still(layer.middle, end)
    tile_for, wide_tile_for, strip_for = pointwise.tile_for, pointwise.wide_tile_for, spatial.strip_for
    for label, run in chains.items():
        times = {}
        for tile in TILES:
            pointwise.tile_for = lambda width, out, size, tile=tile: tile
            pointwise.wide_tile_for = lambda dim, out, size, tile=tile: tile if out else wide_tile_for(dim, out, size)
            times[tile] = attempt(run)
        pointwise.tile_for, pointwise.wide_tile_for = tile_for, wide_tile_for
        width, out = (inner, layer.middle.out_width) if "gelu" in label else (hidden, end.out_width)
        now = wide_tile_for(dim, out, 2) if dim > CHUNK else tile_for(width, out, 2)
        print(f"{name}, {label}: {listed(times, now)}", flush=True)
    end.depthwise = of_end
    for (label, run), width in zip(depthwise.items(), (dim, hidden), strict=True):
        times = {}
        for strip in STRIPS:
            spatial.strip_for = lambda channels, strip=strip: strip
            times[strip] = attempt(run)
        spatial.strip_for = strip_for
        print(f"{name}, {label}: {listed(times, strip_for(width))}", flush=True)


def attempt(run: Callable[[], Any]) -> float:
    try:
        return microseconds(run)
    except Exception as error:  # does not fit into shared memory, among others
        print(f"  {str(error).splitlines()[0][:100]}")
        return float("inf")


def listed(times: dict[Any, float], now: Any) -> str:
    """Candidates and times, the fastest first; the one in use is marked."""
    ordered = sorted(times.items(), key=lambda item: item[1])
    return ", ".join(
        f"{'*' if c == now else ''}{tuple(vars(c).values())} {t:.1f}" for c, t in ordered if t < float("inf")
    )


def products(layer: Layer) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the products of a layer."""
    dim, inner, hidden = widths(layer)
    return {
        "gate": (dim, inner),
        "projection": (inner, dim),
        "FFN 1": (dim, hidden),
        "FFN 2": (hidden, dim),
        "qkv": (dim, 3 * inner),
    }


def eight_bit(name: str, network: GpuSST, maps: RandomMaps) -> None:
    layers: Any = network.blocks[0].layers
    totals = [0.0] * 4
    one = torch.ones((), device="cuda")
    for label, (inputs, outputs) in products(layers[0]).items():
        inputs, outputs = (round_up(width, 16) for width in (inputs, outputs))  # what FP8 products take
        a = maps(inputs).flatten(0, 2)
        weight = torch.randn(outputs, inputs, device="cuda", dtype=a.dtype)
        a8, w8 = a.to(torch.float8_e4m3fn), weight.to(torch.float8_e4m3fn)
        ai, wi = (t.float().clamp(-3, 3).mul(40).to(torch.int8) for t in (a, weight))
        runs: list[Callable[[], Any]] = [
            lambda a=a, weight=weight: nn.functional.linear(a, weight),
            lambda a8=a8, w8=w8: torch._scaled_mm(a8, w8.T, one, one, out_dtype=maps.dtype),
            lambda ai=ai, wi=wi: torch._int_mm(ai, wi.T),
            lambda a=a: a.to(torch.float8_e4m3fn),
        ]
        times = [attempt(run) for run in runs]
        totals = [total + time for total, time in zip(totals, times, strict=True)]
        print(f"| {name} | {label} {inputs} -> {outputs} | " + " | ".join(f"{time:.1f}" for time in times) + " |")
    print(f"| {name} | all of a layer | " + " | ".join(f"{time:.1f}" for time in totals) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    sst = [name for name in NAMES if name.startswith("sst")]
    parser.add_argument(
        "--presets", nargs="+", default=["sst-light", "sst-plus", "sst-large-plus", "sst-xl-plus"], choices=sst
    )
    parser.add_argument("--size", default="180x320", help="rows x columns of the map")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp16")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--eight-bit", action="store_true")
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    maps = RandomMaps((height, width), DTYPES[args.dtype])
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {args.size}, {args.dtype}")
    if args.eight_bit:
        print("| network | product | fp16, us | FP8, us | INT8, us | cast to FP8, us |\n|---|---|---|---|---|---|")
    elif not args.tune:
        print("| network | pass | us | floor, us | share |\n|---|---|---|---|---|")
    show = eight_bit if args.eight_bit else tune if args.tune else pass_table
    with torch.inference_mode():
        for name in args.presets:
            network = gpu_network(build_model(name, 4), maps.dtype).cuda()
            assert isinstance(network, GpuSST)
            show(name, network, maps)


if __name__ == "__main__":
    main()
