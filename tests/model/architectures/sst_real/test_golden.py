"""SST-Real computes what the official code computes, on the official vectors: plain, folded, and its test pipeline."""

import dataclasses

import pytest
import torch

from flashrib.model.architectures.sst_real.network import SSTReal
from flashrib.model.fold import fold
from flashrib.model.gpu import gpu_network
from tests.model.architectures.sst_real.test_recognise import SMALL
from tests.model.architectures.sst_real.vectors import load, names, network, pictures
from tests.official import max_abs

pytestmark = pytest.mark.shared
BOUNDS = [(torch.float32, 1e-4), (torch.float64, 1e-9)]
DTYPES = pytest.mark.parametrize(("dtype", "bound"), BOUNDS, ids=["float32", "float64"])


@DTYPES
@pytest.mark.parametrize("name", names("network"))
def test_network(name: str, dtype: torch.dtype, bound: float) -> None:
    ours = network(name, dtype)
    for tensors in pictures(load(name)[1]):
        x, sigma, low = (tensors[key].to(dtype) for key in ("input", "sigma", "lq"))
        with torch.no_grad():
            guide, last = ours.denoise(x, sigma, low)
            output = ours(x, sigma, low)
        assert max_abs(guide, tensors["output_i"]) <= 1e-4
        assert max_abs(last, tensors["output_f"]) <= 1e-4
        assert max_abs(output, tensors["output_f64"]) <= bound


@DTYPES
@pytest.mark.parametrize("folded", [False, True], ids=["plain", "folded"])
@pytest.mark.parametrize("name", names("pipeline"))
def test_pipeline(name: str, folded: bool, dtype: torch.dtype, bound: float) -> None:
    about, tensors = load(name)
    ours = network(name, torch.float32, pad_to=about.get("min_size", 64), sigma=float(about.get("sigma", 1)))
    run = fold(ours, dtype=dtype) if folded else ours.to(dtype).reference
    for picture in pictures(tensors):
        with torch.no_grad():
            output = run(picture["input"].to(dtype), picture["noise"].to(dtype))
        exact = picture["output_raw_f64"]
        limit = bound if exact.dtype == torch.float64 else 1e-6  # the vector is rounded to float32
        assert max_abs(2 * output - 1, exact) <= max(bound, limit)
        if dtype == torch.float32 and "output_u8" in picture:
            pixels = (output[0].clamp(0, 1) * 255).round()
            different = (pixels - picture["output_u8"]).abs()
            assert different.max() <= 1  # where the official value lies at half a step
            assert different.sum() <= 2


@DTYPES
@pytest.mark.parametrize("name", names("network"))
def test_folded_at_a_noise_level(name: str, dtype: torch.dtype, bound: float) -> None:
    """Every kind of network folds: against its own pipeline in float64, at the level of the last picture."""
    tensors = pictures(load(name)[1])[-1]
    ours = network(name, torch.float64, pad_to=8, sigma=float(tensors["sigma"][-1]))
    low = (tensors["lq"][-1:].double() + 1) / 2
    rows, columns = (-(-side // 8) * 32 for side in low.shape[-2:])
    noise = torch.randn(1, 3, rows + 4, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        exact = ours.reference(low, noise)
        assert max_abs(fold(ours, dtype=dtype)(low.to(dtype), noise.to(dtype)), exact) <= bound


def test_form_for_gpus() -> None:
    """The form for GPUs in float32, on the CPU, on the official pipeline."""
    about, tensors = load("real_pipeline_min16")
    ours = gpu_network(network("real_pipeline_min16", pad_to=about["min_size"]), torch.float32)
    for picture in pictures(tensors):
        with torch.no_grad():
            assert max_abs(2 * ours(picture["input"], picture["noise"]) - 1, picture["output_raw_f64"]) <= 1e-4


def test_without_guidance_one_head_is_enough() -> None:
    ours = network("real_fuse_none", torch.float64, pad_to=8)
    ours.config = dataclasses.replace(ours.config, guidance=1.0)
    folded = fold(ours, dtype=torch.float64)
    low, noise = torch.rand(1, 3, 8, 16, dtype=torch.float64), torch.randn(1, 3, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        assert len(folded.heads) == 1
        assert max_abs(folded(low, noise), ours.reference(low, noise)) <= 1e-12


def test_no_noise_no_change() -> None:
    """At noise level 0 the input comes back bit for bit, whatever the network gives."""
    ours = network("real_fuse_none")
    x, low = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(ours.denoise(x, torch.zeros(1), low)[1], x)


@pytest.mark.parametrize(("fuse_till", "guide"), [(0, 0), (-1, 1), (1, 0)])
def test_form_for_gpus_of_many_channels(fuse_till: int, guide: int) -> None:
    """Above 64 channels sums are made in place, with the biases to come added in advance."""
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, dim=72, heads=(3, 3), fuse_till=fuse_till, guide_block=guide)
    ours = SSTReal(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.1)
        picture, noise = torch.rand(1, 3, 18, 13), torch.randn(1, 3, 128, 64)
        exact = ours.double().reference(picture.double(), noise.double())
        found = gpu_network(ours.float(), torch.float32)(picture, noise)
    assert max_abs(found, exact) <= 2e-5 * exact.abs().max().item()
