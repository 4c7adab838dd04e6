"""The fused kernel on the CPU, through Triton's interpreter; `test_kernel.py` runs this file, since Triton must be told first.

Errors are at most twice those of the plain definition in the same dtype, plus a rounding floor.
"""

import pytest
import torch
from torch import Tensor

from flashrib.model.attention.disc import disc_attention
from flashrib.model.attention.disc.op import launch
from flashrib.model.attention.disc.tuning import Blocks
from tests.model.attention.window.interpreted_kernel import bfloat16_products, bounds_of_loops, poison
from tests.model.interpreter import language_patched_once
from tests.official import max_abs, seeded

__all__ = [
    "bfloat16_products",
    "bounds_of_loops",
    "language_patched_once",
    "poison",
]  # fixtures that every test here takes

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter: -inf, NaN, overflow

# H, W, text, radius, pooled, tile, keys
CASES = {
    "odd-sizes": (5, 7, 20, 3, 0, (4, 4), (4, 4)),
    "less-text-than-a-block": (4, 9, 5, 3, 0, (4, 8), (4, 4)),
    "no-text": (5, 6, 0, 2, 0, (4, 4), (4, 4)),
    "pooled": (4, 8, 16, 3, 18, (4, 4), (2, 8)),
    "disc-larger-than-picture": (5, 6, 17, 30, 3, (4, 8), (4, 8)),
}


def operands(n: int, pooled: int, dim: int, dtype: torch.dtype) -> list[Tensor]:
    random = seeded(n + dim)
    return [torch.randn(1, size, 1, dim, generator=random).to(dtype) for size in (n, n + pooled, n + pooled)]


def check(case: str, tensors: list[Tensor]) -> None:
    height, width, text, radius, pooled, tile, keys = CASES[case]
    facts = ((height, width), text, radius, 0.25, pooled)
    exact, exact_lse = disc_attention(*(x.double() for x in tensors), *facts, form="reference")
    plain, _ = disc_attention(*tensors, *facts, form="reference")
    out, lse = launch(*tensors, *facts, blocks=Blocks(tile, keys, 1, 1))
    assert max_abs(out.double(), exact) <= 2 * max_abs(plain.double(), exact) + 2e-6
    assert max_abs(lse.double(), exact_lse) <= 1e-4


@pytest.mark.parametrize("case", CASES)
def test_geometry(case: str) -> None:
    height, width, text, _, pooled, *_ = CASES[case]
    check(case, operands(text + height * width, pooled, 16, torch.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_and_a_head_of_24(dtype: torch.dtype) -> None:
    check("odd-sizes", operands(55, 0, 24, dtype))


@pytest.mark.parametrize("logit", [40, 2000])
def test_one_logit_far_above_the_first_keys(logit: int) -> None:
    """Weights that overflow float16, or float32: only the repetition with a running maximum gives this key's v."""
    q, k, v = operands(55, 0, 16, torch.float16)
    q, k = torch.ones_like(q), torch.zeros_like(k)
    k[0, 50] = logit / 4
    check("odd-sizes", [q, k, v])


def test_slices_of_one_map() -> None:
    """q, k and v stay where they are: rows of a (B, n, 3*h*D) map."""
    whole = torch.randn(1, 55, 3, 1, 16, generator=seeded(1))
    check("odd-sizes", list(whole.unbind(2)))
