"""The network for GPUs equals the training form: its wiring on the CPU in float64, its kernels on a GPU in fp16 and bf16."""

import dataclasses
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from flashrib.model import build_model
from flashrib.model.architectures.esc.gpu import Mixing
from flashrib.model.architectures.esc.network import geometric_ensemble
from flashrib.model.config import NetworkConfig, UpsamplerConfig
from flashrib.model.gpu import gpu_network
from flashrib.model.network import Network
from flashrib.runtime.errors import UsageError
from tests.model.networks import SMALL, SMALL_ESC, small_network
from tests.official import UPSCALERS, max_abs, seeded

BOUND = 1e-6  # of the largest output: biases stay in float32 whatever the dtype

SST_WIDE = dataclasses.replace(SMALL, dim=66, ffn_dim=70)  # more than one chunk of channels: other passes
CASES: dict[str, NetworkConfig] = {
    "direct-x3": dataclasses.replace(SMALL, upsampler=UpsamplerConfig("pixelshuffle_direct", 3)),
    "shuffle-x2": dataclasses.replace(SMALL, upsampler=UpsamplerConfig("pixelshuffle", 2, 9)),
    "shuffle-x3": dataclasses.replace(SMALL, upsampler=UpsamplerConfig("pixelshuffle", 3, 6)),
    "shuffle-x4": dataclasses.replace(SMALL, upsampler=UpsamplerConfig("pixelshuffle", 4, 8)),
    "nearest-x4": dataclasses.replace(SMALL, upsampler=UpsamplerConfig("nn+conv", 4, 5)),
    "linear-gate": dataclasses.replace(SMALL, gate="Linear"),
    "no-gate": dataclasses.replace(SMALL, gate=None),
    "shifted": dataclasses.replace(SMALL, windows=((4, 6), (4, 6))),
    "rank-above-hidden": dataclasses.replace(SMALL, ranks=(11, 9)),
    "wide": SST_WIDE,
    "wide-no-gate": dataclasses.replace(SST_WIDE, gate=None),
    "wide-ffn": dataclasses.replace(SMALL, ffn_dim=330),  # more weights than one pass holds
    "esc": SMALL_ESC,
    "esc-wide": dataclasses.replace(SMALL_ESC, dim=66, use_ln=True),
    "esc-wide-ffn": dataclasses.replace(SMALL_ESC, ffn_dim=330),
    "esc-layer-norms": dataclasses.replace(SMALL_ESC, use_ln=True, conv_blocks=2, blocks=2),
    "esc-groups-of-4": dataclasses.replace(SMALL_ESC, dim=24, pdim=16, window=(8, 8), kernel_size=13),
    "esc-no-gate": dataclasses.replace(SMALL_ESC, gate=None),
}


def run(network: Any, picture: Tensor) -> Tensor:
    with torch.inference_mode():
        y: Tensor = network(picture)
    return y


@pytest.mark.parametrize("size", [(13, 19), (3, 4)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_training_form(case: str, size: tuple[int, int]) -> None:
    network = small_network(CASES[case]).double()
    picture = torch.rand(2, 3, *size, generator=seeded(1), dtype=torch.float64)
    exact = run(network.upscale, picture)
    assert max_abs(run(gpu_network(network, torch.float64), picture), exact) <= BOUND * exact.abs().max()


def test_a_map_is_freed_after_its_last_use() -> None:
    """ESC's blocks begin with a map as wide as the FFN: it is gone when attention runs, where memory is at its peak."""
    deployed: Any = gpu_network(small_network(CASES["esc-layer-norms"]).double(), torch.float64)
    made: list[weakref.ref[Tensor]] = []
    kept: list[bool] = []
    for join in deployed.joins[:-1]:
        join.register_forward_hook(lambda module, inputs, outputs: made.append(weakref.ref(outputs.look("y"))))
    for block in deployed.blocks:
        block.attention.register_forward_pre_hook(lambda module, inputs: kept.append(made[-1]() is not None))
    run(deployed, torch.rand(1, 3, 16, 18, dtype=torch.float64))
    assert kept == [False, False]


@pytest.mark.parametrize("case", ["shuffle-x2", "wide", "esc"])
def test_exported(case: str) -> None:
    """As packages take it: convolutions are an operator of our own, and the result is that of the network to the last bit."""
    deployed, picture = (
        gpu_network(small_network(CASES[case]), torch.float32),
        torch.rand(1, 3, 16, 24, generator=seeded(5)),
    )
    with torch.no_grad():
        program = torch.export.export(deployed, (picture,))
        nodes = [node for node in program.graph.nodes if node.op == "call_function" and "conv" in str(node.target)]
        own = [node for node in nodes if str(node.target) == "flashrib.gpu_convolution.default"]
        assert own
        for node in set(nodes) - set(own):  # on a GPU a kernel
            assert (node.target, node.args[6] > 1) == (torch.ops.aten.conv2d.default, True), "not a depthwise one"
        assert torch.equal(program.module()(picture), deployed(picture))


def test_has_no_parameters_and_leaves_the_network_alone() -> None:
    network = small_network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    deployed = gpu_network(network)
    assert not deployed.training
    assert not list(deployed.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_too_small_for_the_border() -> None:
    network = small_network(CASES["shuffle-x2"])
    with pytest.raises(UsageError, match="at least 3x3 pixels"):
        run(gpu_network(network, torch.float32), torch.rand(1, 3, 2, 9))


@pytest.mark.parametrize(("channels", "side", "pixels"), [(16, 13, 4), (8, 5, 8), (24, 3, 2), (4, 3, 8), (72, 3, 1)])
def test_mixing(channels: int, side: int, pixels: int) -> None:
    """The large convolution and that with taps of its own for each image are what PyTorch makes of them, whatever the width."""

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=seeded(2), dtype=torch.float64)

    kernel, taps = geometric_ensemble(random(channels, channels, side, side)), random(2, 9, channels)
    layer = Mixing(kernel, torch.float64)
    assert layer.pixels == pixels
    for width in (3, 2 * pixels, 5 * pixels + 1):
        x = random(2, 7, width, channels)
        source = x.permute(0, 3, 1, 2)
        exact = conv2d(source, kernel, padding=side // 2)
        for image in range(2):
            dynamic = taps[image].T.reshape(channels, 1, 3, 3)
            exact[image] += conv2d(source[image], dynamic, padding=1, groups=channels)
        y = layer(pad(x, (0, -channels % 8)), pad(taps, (0, -channels % 64))).permute(0, 3, 1, 2)
        assert max_abs(y[:, :channels], exact) <= 1e-12 * exact.abs().max()
        assert not y[:, channels:].any()


def rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


def usual(network: Network, picture: Tensor, dtype: torch.dtype) -> Tensor:
    """The training form in autocast, as PyTorch computes it."""
    with torch.autocast("cuda", dtype):
        return run(network.upscale, picture)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", UPSCALERS)
def test_presets_on_a_gpu(name: str, dtype: torch.dtype) -> None:
    """Fresh random weights and picture, sizes that are no multiples: error at most twice that of PyTorch in autocast."""
    torch.manual_seed(torch.seed() % 2**31)
    network, picture = build_model(name, 4).cuda(), torch.rand(1, 3, 100, 131, device="cuda")
    precision = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    try:
        exact = run(network.upscale, picture)
    finally:
        torch.backends.cudnn.conv.fp32_precision = precision
    ours = run(gpu_network(network, dtype).cuda(), picture)
    assert ours.dtype == torch.float32
    assert rms(ours - exact) <= 2 * rms(usual(network, picture, dtype) - exact)
    assert rms(ours - exact) <= 2 * torch.finfo(dtype).eps * rms(exact)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_small_networks_on_a_gpu(case: str) -> None:
    """float32 on the kernels, two pictures at once, all kinds of layers."""
    network = small_network(CASES[case])
    picture = torch.rand(2, 3, 13, 19, generator=seeded(4))
    exact = run(network.double().upscale, picture.double())
    ours = run(gpu_network(network, torch.float32).cuda(), picture.cuda()).cpu()
    assert max_abs(ours.double(), exact) <= 2e-3 * exact.abs().max()  # convolutions in TF32


@pytest.mark.gpu
def test_captured_in_a_graph() -> None:
    """One CUDA graph, three pictures: the same as eager runs, so no step depends on the host."""
    for network in (build_model("esc-rib", 2), build_model("sst-light", 2)):  # their weights keep to the range of fp16
        deployed = gpu_network(network).cuda()
        buffer = torch.rand(1, 3, 64, 96, device="cuda")
        run(deployed, buffer)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            output = deployed(buffer)
        for _ in range(3):
            picture = torch.rand_like(buffer)
            buffer.copy_(picture)
            graph.replay()
            assert rms(output - run(deployed, picture)) <= 1e-3 * rms(output)
