"""Every degradation does what the official code does with the same parameters; the pipeline is seeded."""

import json

import pytest
import torch

from flashrib.model.training.degradations import Degradation, SecondOrder, kernels, operations
from flashrib.model.training.degradations.jpeg import jpeg
from flashrib.runtime.errors import UsageError
from tests.model.architectures.sst_real.vectors import load
from tests.official import max_abs
from tests.places import SHARED

VECTOR = SHARED / "golden" / "sst_real" / "real_degradations.json"
KERNELS = json.loads(VECTOR.read_text())["kernels"] if VECTOR.exists() else {}
QUALITIES = ["30.0", "49.9", "50.0", "71.3", "95.0"]


@pytest.mark.shared
@pytest.mark.parametrize("name", KERNELS)
def test_kernel(name: str) -> None:
    parameters = dict(KERNELS[name])
    size = parameters.pop("size")
    if name.startswith("sinc"):
        found = kernels.sinc(size, parameters["omega"], parameters.get("pad_to", 0))
    else:
        make = kernels.plateau if name.startswith("p") else kernels.gaussian
        sigma = parameters.get("sigma", parameters.get("sigma_x"))
        found = make(size, sigma, parameters.get("sigma_y"), parameters.get("theta", 0.0), parameters.get("beta", 1.0))
    assert abs(found.sum().item() - 1) <= 1e-12
    assert max_abs(found, load("real_degradations")[1][f"kernel.{name}"]) <= 1e-7


@pytest.mark.shared
def test_blur() -> None:
    tensors = load("real_degradations")[1]
    both = torch.stack([tensors["kernel.aniso9"], tensors["kernel.sinc9_2.500"]])
    assert max_abs(operations.blur(tensors["image"], both), tensors["filtered"]) <= 1e-6


@pytest.mark.shared
@pytest.mark.parametrize("quality", QUALITIES)
def test_jpeg(quality: str) -> None:
    tensors = load("real_degradations")[1]
    found = jpeg(tensors["image"][:1], torch.tensor([float(quality)]))
    assert max_abs(found, tensors[f"jpeg.{quality}"]) <= 1e-5


@pytest.mark.shared
def test_jpeg_of_a_batch() -> None:
    tensors = load("real_degradations")[1]
    assert max_abs(jpeg(tensors["image"], torch.tensor([35.0, 88.0])), tensors["jpeg.batch_35_88"]) <= 1e-5


@pytest.mark.shared
@pytest.mark.parametrize("mode", operations.RESIZE_MODES)
def test_resize(mode: str) -> None:
    tensors = load("real_degradations")[1]
    picture = tensors["image"][:1]
    assert max_abs(operations.resize(picture, mode, scale=0.37), tensors[f"resize.{mode}.scale0.37"]) <= 1e-6
    assert max_abs(operations.resize(picture, mode, size=(13, 9)), tensors[f"resize.{mode}.size13x9"]) <= 1e-6


@pytest.mark.shared
def test_noise() -> None:
    tensors = load("real_degradations")[1]
    picture, gray = tensors["image"], torch.tensor([0.0, 1.0])
    z, z_gray = tensors["gauss.noise"], tensors["gauss.noise_gray"]
    found = operations.gaussian_noise(picture, torch.tensor([12.0, 27.0]), gray, z, z_gray)
    assert max_abs(found, tensors["gauss.out"]) <= 1e-6
    of_gray, of_colour = operations.rates(operations.gray_of(picture))[2], operations.rates(picture)[2]
    assert max_abs(of_gray, tensors["poisson.rate_gray"]) <= 1e-4
    assert max_abs(of_colour, tensors["poisson.rate_color"]) <= 1e-4
    counts = torch.cat([of_gray, of_colour], dim=1).round()
    found = operations.poisson_noise(picture, torch.tensor([0.7, 2.2]), gray, counts)
    assert max_abs(found, tensors["poisson.out_if_poisson_were_round"]) <= 1e-6


def test_a_seed_decides_everything() -> None:
    degradation = Degradation()
    picture = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    low, enlarged = degradation(picture, 3)
    again, _ = degradation(picture, 3)
    other, _ = degradation(picture, 4)
    assert low.shape == (2, 3, 16, 24)
    assert enlarged.shape == picture.shape
    assert torch.equal(low, again)
    assert not torch.equal(low, other)
    assert torch.equal(low, (low * 255).round() / 255)


def test_every_branch_gives_pictures() -> None:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    results = [Degradation()(picture, seed)[0] for seed in range(25)]
    assert all(low.isfinite().all() and low.min() >= 0 and low.max() <= 1 for low in results)
    assert len({low.numpy().tobytes() for low in results}) == len(results)


def test_without_degradation_only_the_size_and_jpeg_remain() -> None:
    """A smooth picture survives a mild setting: the pipeline shrinks, and does not shift."""
    import dataclasses

    mild = dataclasses.replace(
        SecondOrder().first, blur=0.0, resize=(0.0, 0.0, 1.0), noise=(0, 1e-6), poisson=(0, 1e-9)
    )
    options = SecondOrder(first=mild, twice=0.0, last_sinc=0.0, quality=(95, 95))
    ramp = torch.linspace(0.2, 0.8, 128).expand(1, 3, 128, 128).contiguous()
    low, enlarged = Degradation(options)(ramp, 0)
    assert max_abs(low, torch.nn.functional.interpolate(ramp, scale_factor=0.25, mode="area")) <= 0.02
    assert max_abs(enlarged[..., 8:-8], ramp[..., 8:-8]) <= 0.02


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="multiples of 4, at least 64"):
        Degradation()(torch.rand(1, 3, 66, 64), 0)
