"""The rule of offsets: the official masks bit for bit, the published table, and the cases at its edges."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file

from flashrib.model.attention.fibonacci.offsets import (
    Order,
    head_offsets,
    head_order,
    head_windows,
    pack_offsets,
    row_offsets,
    support,
)
from flashrib.runtime.errors import UsageError
from tests.places import SHARED

GOLDEN = SHARED / "golden" / "fibottention"

# Heads at N = 196, before the shuffle; `docs/fibottention.md`.
TABLE = {
    3: [[1, 2, 3, 5], [4, 7, 11, 18, 29], [6, 10, 16, 26, 42]],
    6: [[1, 2, 3, 5], [4, 7, 11], [6, 10, 16, 26], [9, 15, 24, 39], [12, 20, 32, 52], [14, 23, 37, 60]],
    12: [
        *([1, 2, 3, 5], [4, 7], [6, 10], [9, 15], [12, 20], [14, 23]),
        *([17, 28], [19, 31], [22, 36], [25, 41], [27, 44], [30, 49]),
    ],
}


@pytest.mark.shared
@pytest.mark.parametrize("heads", [3, 12])
@pytest.mark.parametrize("variant", ["std", "mod"])
@pytest.mark.parametrize(
    ("named", "order", "depth"), [("unshuffled", "none", 0), ("depth0", "depth", 0), ("depth1", "depth", 1)]
)
def test_official_masks(heads: int, variant: str, named: str, order: Order, depth: int) -> None:
    official = load_file(GOLDEN / f"fibo_masks_h{heads}.safetensors")[f"{variant}_{named}"]
    offsets = head_offsets(196, heads, depth, order, "standard" if variant == "std" else "modified")
    assert torch.equal(support(pack_offsets(offsets, 196), 197), official)


@pytest.mark.shared
@pytest.mark.parametrize("heads", [3, 12])
def test_official_orders(heads: int) -> None:
    told = json.loads((GOLDEN / f"fibo_masks_h{heads}.json").read_text())["head_order_by_depth"]["order"]
    assert {depth: head_order(heads, int(depth), "depth") for depth in told} == told


@pytest.mark.parametrize("heads", TABLE)
def test_table(heads: int) -> None:
    assert head_offsets(196, heads, 0, "none") == TABLE[heads]


def test_sixteen_heads() -> None:
    assert head_offsets(196, 16, 0, "none")[12:] == [[33], [35, 57], [38], [40, 65]]


@pytest.mark.parametrize(
    ("heads", "order"), [(6, [4, 2, 1, 0, 5, 3]), (16, [10, 14, 5, 1, 9, 2, 3, 11, 13, 7, 8, 4, 0, 6, 15, 12])]
)
def test_shuffle(heads: int, order: list[int]) -> None:
    assert head_order(heads, 0, "depth") == order
    assert head_order(heads, 5, "depth0") == order
    assert head_order(heads, 5, "none") == list(range(heads))


def test_the_random_generator_of_others_is_left_alone() -> None:
    random.seed(7)
    state = random.getstate()
    head_offsets(196, 12, 3, "depth")
    assert random.getstate() == state


def test_first_term_stays_beyond_its_window() -> None:
    windows = head_windows(64, 12)
    rows = [row_offsets(i + 1, windows[i]) for i in range(12)]
    assert [row[0] for row in rows] == [1, 4, 6, 9, 12, 14, 17, 19, 22, 25, 27, 30]
    assert any(row[0] > window for row, window in zip(rows, windows, strict=True))


def test_offsets_that_no_pair_has_are_left_out() -> None:
    offsets = head_offsets(16, 12, 0, "none")
    assert max(o for row in offsets for o in row) < 16
    assert [] in offsets


def test_windows_are_computed_as_the_official_code_does() -> None:
    def exact(patches: int, heads: int) -> list[int]:
        return [5 + (patches // 3 - 5) * i // (heads - 1) for i in range(heads)]

    assert head_windows(777, 24) != exact(777, 24)  # 64-bit floats
    assert head_windows(1024, 24) == exact(1024, 24)
    assert head_windows(196, 1) == [5]
    assert head_windows(196, 2, "full") == [196, 196]


def test_modified_rows_begin_two_terms_earlier() -> None:
    assert row_offsets(1, 5, "modified") == [0, 1, 1, 2, 3, 5]
    assert row_offsets(2, 11, "modified") == [1, 3, 4, 7, 11]
    assert head_offsets(196, 3, 0, "none", "modified")[0] == [0, 1, 2, 3, 5]


@pytest.mark.parametrize(
    ("heads", "standard", "modified"), [(3, 0.044495, 0.059628), (6, 0.0354, 0.05287), (12, 0.01994, 0.03827)]
)
def test_kept_share(heads: int, standard: float, modified: float) -> None:
    for variant, share in (("standard", standard), ("modified", modified)):
        offsets = head_offsets(196, heads, 4, "depth", variant)
        kept = support(pack_offsets(offsets, 196), 197)[:, 1:, 1:]
        assert kept.float().mean().item() == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize(
    "bad", [{"order": "random"}, {"variant": "wide"}, {"spread": "half"}, {"heads": 0}, {"patches": 0}]
)
def test_refused(bad: dict[str, object]) -> None:
    values: dict[str, object] = {"patches": 196, "heads": 3, "depth": 0, "order": "none", **bad}
    with pytest.raises(UsageError, match=r"offsets"):
        head_offsets(**values)
