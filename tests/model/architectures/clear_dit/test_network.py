"""CLEAR's transformer: the official vectors, its deployment form, sizes that change."""

import pytest
import torch

from flashrib.model.architectures.clear_dit import kernels, passes
from flashrib.model.architectures.clear_dit.config import ClearConfig, overlay_shapes, preset
from flashrib.model.architectures.clear_dit.fold import fold_onto
from flashrib.model.architectures.clear_dit.network import ClearTransformer, axis_angles
from flashrib.model.architectures.clear_dit.step import DenoiseStep
from flashrib.model.fold import fold
from flashrib.runtime.errors import UsageError
from tests.model.architectures.clear_dit.cases import VARIANTS, inputs, network, official, tiny
from tests.official import max_abs


@pytest.mark.shared
@pytest.mark.parametrize("variant", VARIANTS)
def test_official_model(variant: str) -> None:
    """The official code end to end in float32, and the deployment form."""
    transformer, given, wanted = official(variant)
    assert max_abs(transformer(*given), wanted) <= 1e-4
    assert max_abs(fold(transformer)(*given), wanted) <= 1e-4


@pytest.mark.parametrize(
    "facts", [{"down": 0}, {"down": 4}, {"radius": None}, {"guidance": False, "proportional": True}], ids=str
)
def test_folding_changes_nothing(facts: dict[str, object]) -> None:
    config = tiny(**facts)
    transformer = network(config).double()
    given = [x.double() for x in inputs(config, 8, 12, batch=2)]
    folded = fold(transformer, dtype=torch.float64)
    assert max_abs(folded(*given), transformer(*given)) <= 1e-11


def test_folding_can_consume_the_network() -> None:
    config = tiny()
    transformer = network(config)
    given = inputs(config, 6, 5)
    wanted = transformer(*given)
    folded = fold_onto(transformer, torch.float32, torch.device("cpu"), consume=True)
    assert sum(p.numel() for p in transformer.transformer_blocks.parameters()) == 0
    assert max_abs(folded(*given), wanted) <= 1e-5


def test_sizes_a_b_a() -> None:
    """The official code keeps the mask of B: its mask lives in a global variable."""
    config = tiny()
    step = DenoiseStep(fold(network(config)), config)
    a, b = inputs(config, 6, 9), inputs(config, 11, 4)
    first = step(*a)
    other = step(*b)
    assert other.shape == (1, 11, 4, 6)
    assert torch.equal(step(*a), first)
    assert max_abs(other, network(config)(*b)) <= 1e-5


def test_angles_come_from_integers() -> None:
    """Row 257 has an angle of its own, unlike in the official pipelines in bfloat16."""
    angles = axis_angles(tiny(), 1, 300)
    assert angles[257, 0] == 257
    assert len(torch.unique(angles[:, 0])) == 300


def test_sizes_of_flux_and_of_clear_files() -> None:
    full = preset("clear-local-8", 1)
    assert len(overlay_shapes(full)) == 380
    assert len(overlay_shapes(preset("clear-local-8-down-4", 1))) == 437
    with torch.device("meta"):
        flux = ClearTransformer(full)
    assert len(flux.state_dict()) == 1160
    assert 11.8e9 < sum(p.numel() for p in flux.parameters()) < 12e9
    assert sum(torch.Size(shape).numel() for shape in overlay_shapes(full).values()) == 190 * (3072**2 + 3072)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"axes": (4, 4, 6)}, "add up to the 16 channels"),
        ({"radius": 0}, "radius 0 must be at least 1"),
        ({"radius": None, "down": 4}, "give a radius"),
        ({"text": 0}, "at least 1 token"),
    ],
    ids=["axes", "radius", "down", "text"],
)
def test_configurations_that_cannot_be(facts: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        tiny(**facts)


def test_step_says_what_it_wants() -> None:
    config: ClearConfig = tiny(down=4)
    step = DenoiseStep(fold(network(config)), config)
    given = inputs(config, 6, 8)
    with pytest.raises(UsageError, match=r"H and W multiples of 4 \(pictures of multiples of 64 pixels\)"):
        step(*given)
    with pytest.raises(UsageError, match="wants guidance"):
        step(*inputs(config, 8, 8)[:4])


@pytest.mark.gpu
@pytest.mark.parametrize("down", [0, 4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_kernels_of_the_passes_on_the_gpu(down: int, dtype: torch.dtype) -> None:
    """The whole step with its kernels is as close to float64 as the plain network in this dtype; graphs A, B, A."""
    assert kernels.pool_kernel is not None
    config = tiny(8, down, heads=3, head_dim=128, axes=(16, 56, 56), text=80)
    transformer = network(config)
    a, b = inputs(config, 24, 20), inputs(config, 12, 28)
    exact = transformer.double()(*(x.double() for x in a))
    plain = transformer.to(dtype).cuda()(*(x.cuda().to(dtype if i < 3 else torch.float32) for i, x in enumerate(a)))
    folded = fold_onto(transformer.float(), dtype, torch.device("cuda"))
    assert passes.fused(folded.proj_out.weight)
    step = DenoiseStep(folded, config)
    first = step(*a).clone()
    step(*b)
    assert torch.equal(step(*a), first)

    def rms(x: torch.Tensor) -> float:
        return (x.double().cpu() - exact).pow(2).mean().sqrt().item()

    assert rms(first) <= 1.5 * rms(plain)
