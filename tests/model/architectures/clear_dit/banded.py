"""A process of `test_bands.py`: `python banded.py RANK PARTS FILE` -> the step in bands over gloo equals the whole step."""

import sys

import torch
import torch.distributed as dist

from flashrib.model.architectures.clear_dit.bands import BandedClear
from flashrib.model.fold import fold
from tests.model.architectures.clear_dit.cases import VARIANTS, inputs, network, official, tiny
from tests.official import max_abs
from tests.places import SHARED


def main() -> None:
    rank, parts, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=parts)
    for radius, down, height, width in ((4, 0, 13, 6), (3, 4, 12, 8), (1, 0, 4, 3), (5, 0, 40, 3)):
        config = tiny(radius, down, proportional=True)
        folded = fold(network(config).double(), dtype=torch.float64)
        given = [x.double() for x in inputs(config, height, width)]
        error = max_abs(BandedClear(folded)(*given), folded(*given))
        assert error <= 1e-11, (radius, down, error)
    if parts == 2 and SHARED.is_dir():
        for variant in (name for name in VARIANTS if name.startswith("r") and name.endswith("_prop_ntk10")):
            transformer, given, wanted = official(variant)
            error = max_abs(BandedClear(fold(transformer))(*given), wanted)
            assert error <= 1e-4, (variant, error)
    dist.destroy_process_group()
    print("equal")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
