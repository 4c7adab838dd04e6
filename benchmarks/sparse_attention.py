"""A sparse attention operator beside dense ones and the official way, in one run on one CUDA GPU.

    python benchmarks/sparse_attention.py --operator offset [--dtype fp16 bf16] [--heads 3 6 12] [--tokens 197 577 ...] [--mask zero_logit]

Every operator has a module `benchmarks/<operator>_operator.py`: `COLUMNS` of a title, `DENSE` (names of the rivals that the share is
taken of), `add_arguments`, and `cases`, each with its title, our call and rivals by name. Times are medians of CUDA graph replays
(triton.testing.do_bench_cudagraph); inputs are larger than the L2 cache. Each form reads the layout that it likes best, made beforehand.
Memory is the peak above the inputs.
"""

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import torch
import triton.testing
from torch import Tensor

OPERATORS = ("offset", "disc")


def measured(call: Callable[[], Tensor], milliseconds: int) -> tuple[float, float] | str:
    """Median time in ms and peak memory in MB above what is allocated, or why there is none."""
    try:
        call()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        torch.cuda.synchronize()
        peak = (torch.cuda.max_memory_allocated() - before) / 1e6
        del result
        return float(triton.testing.do_bench_cudagraph(call, rep=milliseconds, return_mode="median")), peak
    except RuntimeError as error:  # no kernel, or no memory
        return str(error).strip().splitlines()[0][:60]
    finally:
        torch.cuda.empty_cache()


def shown(result: tuple[float, float] | str) -> str:
    return result if isinstance(result, str) else f"{result[0]:.4f} ({result[1]:.0f})"


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operator", choices=OPERATORS, required=True)
    parser.add_argument("--milliseconds", type=int, default=20, help="of replays per figure")
    known, _ = parser.parse_known_args()
    operator: Any = importlib.import_module(f"benchmarks.{known.operator}_operator")
    operator.add_arguments(parser)
    arguments = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, Triton {triton.__version__}; ms (MB)")
    header: list[str] = []
    for case in operator.cases(arguments):
        ours = measured(case.ours, known.milliseconds)
        rivals = {name: measured(call, known.milliseconds) for name, call in case.rivals.items()}
        if not header:
            header = [*operator.COLUMNS, "ours", *rivals, "share of best dense"]
            print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
        dense = [r[0] for name, r in rivals.items() if name in operator.DENSE and not isinstance(r, str)]
        share = f"{ours[0] / min(dense):.1%}" if dense and not isinstance(ours, str) else ""
        print("| " + " | ".join([*case.title, shown(ours), *map(shown, rivals.values()), share]) + " |", flush=True)


if __name__ == "__main__":
    main()
