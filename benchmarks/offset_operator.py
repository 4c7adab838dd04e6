"""`offset_attention` for `sparse_attention.py`: against PyTorch's cuDNN and flash attention, and the official way, a dense mask.

Batches hold about as many tokens at every size. Our input is the fused qkv of a layer; the others get q, k and v of their own.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from flashrib.model.attention.fibonacci import offset_attention
from flashrib.model.attention.fibonacci.offsets import head_offsets, pack_offsets, support

COLUMNS = ("N+1", "heads", "batch", "type", "mask")
DENSE = ("cuDNN", "flash")
HEAD_DIM = 64
PICTURES = {197: 256, 577: 64, 785: 42, 1025: 32, 3137: 10, 4097: 8, 12545: 3, 16385: 2}  # with 12 heads
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table."""

    title: tuple[str, ...]
    ours: Callable[[], Tensor]
    rivals: dict[str, Callable[[], Tensor]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what chooses the rows."""
    parser.add_argument("--tokens", type=int, nargs="+", choices=PICTURES, default=[197, 577, 1025, 4097, 16385])
    parser.add_argument("--heads", type=int, nargs="+", default=[3, 6, 12])
    parser.add_argument("--dtype", nargs="+", choices=TYPES, default=["fp16", "bf16"])
    parser.add_argument("--mask", nargs="+", choices=("neg_inf", "zero_logit"), default=["neg_inf"])
    parser.add_argument("--official", action="store_true", help="also the official way, which needs up to 40 GB")


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Yield the rows, one at a time in memory."""
    for name in arguments.dtype:
        for heads in arguments.heads:
            for tokens in arguments.tokens:
                for mask in arguments.mask:
                    yield case(tokens, heads, name, mask, arguments.official)


def case(tokens: int, heads: int, name: str, mask: str, official: bool) -> Case:
    """Make one row."""
    batch = PICTURES[tokens] * 12 // heads
    generator = torch.Generator("cuda").manual_seed(0)
    width = heads * HEAD_DIM
    qkv = torch.randn(batch, tokens, 3 * width, generator=generator, device="cuda").to(TYPES[name])
    qkv[..., :width] *= HEAD_DIM**-0.5
    offsets = pack_offsets(head_offsets(tokens - 1, heads, 0, "depth"), tokens - 1).cuda()
    q, k, v = (x.contiguous() for x in qkv.view(batch, tokens, 3, heads, HEAD_DIM).permute(2, 0, 3, 1, 4))

    def dense(backend: SDPBackend) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, scale=1.0)

        return call

    rivals = {"cuDNN": dense(SDPBackend.CUDNN_ATTENTION), "flash": dense(SDPBackend.FLASH_ATTENTION)}
    if official:
        kept = torch.stack([support(offsets[h : h + 1], tokens)[0] for h in range(heads)]).to(qkv.dtype)

        def with_mask() -> Tensor:
            scores = q @ k.transpose(-1, -2)
            scores = scores * kept if mask == "zero_logit" else scores.masked_fill(kept == 0, -torch.inf)
            return torch.softmax(scores, dim=-1) @ v

        rivals["official"] = with_mask
    title = (str(tokens), str(heads), str(batch), name, mask)
    return Case(title, lambda: offset_attention(qkv, offsets, heads, mask, form="triton"), rivals)
