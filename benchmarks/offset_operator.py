"""`offset_attention` for `sparse_attention.py`: against PyTorch's cuDNN and flash attention, and the official way, a dense mask.

Batches hold about as many tokens at every size. Our input is the fused qkv of a layer; the others get q, k and v of their own. With
--backward every figure is of the operator and its gradients, and the gather form, which reads qkv as well, is among the rivals:

    python benchmarks/sparse_attention.py --operator offset --backward --heads 12 --dtype fp16 --mask neg_inf zero_logit
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
    parser.add_argument("--backward", action="store_true", help="the operator and its gradients")
    parser.add_argument("--official", action="store_true", help="also the official way, which needs up to 40 GB")


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Yield the rows, one at a time in memory."""
    for name in arguments.dtype:
        for heads in arguments.heads:
            for tokens in arguments.tokens:
                for mask in arguments.mask:
                    yield case(tokens, heads, name, mask, arguments.official, arguments.backward)


def with_gradients(call: Callable[[], Tensor], grad: Tensor, *inputs: Tensor) -> Callable[[], Tensor]:
    """The call and the gradients of its inputs, which from now on want them."""
    for x in inputs:
        x.requires_grad_()
    return lambda: torch.autograd.grad(call(), inputs, grad)[0]


def case(tokens: int, heads: int, name: str, mask: str, official: bool, backward: bool) -> Case:
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

    def sparse(form: str) -> Callable[[], Tensor]:
        return lambda: offset_attention(qkv, offsets, heads, mask, form=form)

    ours = sparse("triton")
    if backward:
        grad = torch.randn(q.shape, generator=generator, device="cuda").to(TYPES[name])
        rivals = {rival: with_gradients(call, grad, q, k, v) for rival, call in rivals.items()}
        grad = grad.view(batch, tokens, width)
        rivals["gather"] = with_gradients(sparse("gather"), grad, qkv)
        ours = with_gradients(ours, grad, qkv)
    return Case(title, ours, rivals)
