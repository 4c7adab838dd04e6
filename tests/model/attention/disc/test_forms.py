"""The forms of `disc_attention` agree with the definition, in value, gradient and errors; merging and pooling."""

import pytest
import torch
from torch import Tensor

from flashrib.model.attention.disc import disc_attention, disc_mask, merge_attention, pool_tokens
from flashrib.runtime.errors import UsageError
from tests.official import max_abs, seeded

# H, W, text, radius, pooled
CASES = {
    "odd": (9, 13, 5, 4, 0),
    "pooled": (8, 12, 3, 3, 6),
    "disc-larger-than-picture": (7, 5, 4, 20, 2),
    "radius-1-sees-itself": (4, 6, 2, 1, 0),
    "no-text": (20, 18, 0, 6, 0),
    "one-token": (1, 1, 1, 8, 0),
    "several-tiles": (18, 33, 16, 8, 4),
}


def operands(case: str, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], tuple[int, int], int, int, int]:
    height, width, text, radius, pooled = CASES[case]
    n = text + height * width
    sizes = (n, n + pooled, n + pooled)
    random = seeded(n)
    tensors = [torch.randn(2, size, 2, 8, generator=random, dtype=torch.float64).to(dtype) for size in sizes]
    return tensors, (height, width), text, radius, pooled


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients(case: str) -> None:
    """Of out and lse together, so both outputs carry gradients."""
    tensors, grid, text, radius, pooled = operands(case)
    results = []
    for form in ("op", "reference", "tiled"):
        inputs = [x.clone().requires_grad_() for x in tensors]
        out, lse = disc_attention(*inputs, grid, text, radius, pooled=pooled, form=form)
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape)
        loss = (out * weights).sum() + (lse * weights[..., 0].transpose(1, 2)).sum()
        results.append([out, lse, *torch.autograd.grad(loss, inputs)])
    for ours, wanted, tiled in zip(*results, strict=True):
        assert max_abs(ours.detach(), wanted.detach()) <= 1e-11
        assert max_abs(tiled.detach(), wanted.detach()) <= 1e-11


def test_the_operator_is_registered_as_it_should_be() -> None:
    tensors, grid, text, radius, pooled = operands("pooled", torch.float32)
    arguments = (*[x.requires_grad_() for x in tensors], list(grid), text, radius, 0.3, pooled)
    kinds = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.flashrib.disc_attention.default, arguments, test_utils=kinds)


def test_strict_distance() -> None:
    """Radius 5: a key 3 rows and 4 columns away is out, since the distance must be strictly smaller."""
    mask = disc_mask((9, 9), 0, 5)
    centre = 4 * 9 + 4
    assert not mask[centre, 7 * 9 + 8]
    assert mask[centre, 7 * 9 + 7]
    assert [int(disc_mask((31, 31), 0, r)[15 * 31 + 15].sum()) for r in (4, 8, 16)] == [45, 193, 793]


@pytest.mark.parametrize("case", ["odd", "pooled", "several-tiles"])
def test_half_precision_is_as_close_as_the_definition_in_it(case: str) -> None:
    tensors, grid, text, radius, pooled = operands(case, torch.bfloat16)
    exact, _ = disc_attention(*(x.double() for x in tensors), grid, text, radius, pooled=pooled, form="reference")
    plain, _ = disc_attention(*tensors, grid, text, radius, pooled=pooled, form="reference")
    ours, lse = disc_attention(*tensors, grid, text, radius, pooled=pooled)
    assert (ours.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    assert max_abs(ours.double(), exact) <= 2 * max_abs(plain.double(), exact) + 1e-3


def test_merging_two_sets_of_keys_is_exact() -> None:
    tensors, grid, text, radius, _ = operands("odd")
    q, k, v = tensors
    whole, lse = disc_attention(q, k, v, grid, text, radius)
    keys = torch.arange(k.shape[1]) % 2 == 0
    mask = disc_mask(grid, text, radius)
    logits = torch.einsum("bmhd,bnhd->bhmn", q, k) * 8**-0.5
    parts = [logits.masked_fill(~(mask & half), -torch.inf) for half in (keys, ~keys)]
    outs = [torch.einsum("bhmn,bnhd->bmhd", p.softmax(-1), v) for p in parts]
    merged, total = merge_attention(torch.stack(outs), torch.stack([p.logsumexp(-1) for p in parts]))
    assert max_abs(merged, whole) <= 1e-12
    assert max_abs(total, lse) <= 1e-12


def test_pooling_is_a_weighted_sum_of_cells_row_major() -> None:
    x = torch.arange(2 * (3 + 4 * 6) * 2 * 5, dtype=torch.float64).reshape(2, 27, 2, 5)
    weight = torch.tensor([[1.0, 10.0], [100.0, 1000.0]], dtype=torch.float64).reshape(1, 1, 1, 2, 1, 2, 1)
    pooled = pool_tokens(x, weight, (4, 6), 3)
    image = x[:, 3:].reshape(2, 4, 6, 2, 5)
    assert pooled.shape == (2, 6, 2, 5)
    wanted = image[:, 2, 4] + 10 * image[:, 2, 5] + 100 * image[:, 3, 4] + 1000 * image[:, 3, 5]
    assert torch.equal(pooled[:, 5], wanted)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"grid": (9, 12)}, "grid 9x12"),
        ({"text": 4}, "4 text tokens"),
        ({"pooled": 1}, "1 pooled"),
        ({"radius": 0}, "radius 0"),
        ({"form": "none-such"}, "reference, tiled, op, triton, symbolic"),
        ({"form": "triton"}, "not in float64"),
        ({"form": "symbolic"}, "only while a network is exported"),
    ],
    ids=["grid", "text", "pooled", "radius", "form", "dtype", "symbolic"],
)
def test_operands_that_do_not_belong_together(change: dict[str, object], says: str) -> None:
    tensors, grid, text, radius, pooled = operands("odd")
    arguments = {"grid": grid, "text": text, "radius": radius, "pooled": pooled} | change
    with pytest.raises(UsageError, match=says):
        disc_attention(*tensors, **arguments)


def test_grid_that_cannot_be_pooled() -> None:
    with pytest.raises(UsageError, match=r"grid 6x8 .* multiples of their root \(64 pixels\)"):
        pool_tokens(torch.zeros(1, 48, 1, 4), torch.ones(4, 4), (6, 8), 0)
