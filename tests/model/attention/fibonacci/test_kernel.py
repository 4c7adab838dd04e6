"""The fused kernel computes what its definition says: on the CPU in a process of its own, where Triton interprets it, and on a GPU."""

import pytest
import torch

from flashrib.model.attention.fibonacci import offset_attention
from flashrib.model.attention.fibonacci.offsets import head_offsets, pack_offsets
from tests.model.attention.fibonacci.cases import LAYERS, layer
from tests.model.interpreter import run_interpreted


@pytest.mark.slow
def test_interpreted() -> None:
    """Triton decides when it is imported whether it interprets kernels, and other tests of this process compile them."""
    run_interpreted("tests/model/attention/fibonacci/interpreted_kernel.py")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["neg_inf", "zero_logit"])
def test_on_a_gpu(mode: str, dtype: torch.dtype) -> None:
    floor = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    cases = [layer(name) for name in LAYERS]
    for patches, heads in ((196, 12), (576, 6), (1024, 3), (3136, 12)):
        offsets = pack_offsets(head_offsets(patches, heads, 1, "depth", "modified"), patches)
        qkv = torch.randn(2, patches + 1, 3 * heads * 64, generator=torch.Generator().manual_seed(patches)).double()
        qkv[..., : heads * 64] *= 0.25
        cases.append((qkv, offsets, heads))
    for qkv, offsets, heads in cases:
        on_gpu, offsets = qkv.to("cuda", dtype), offsets.cuda()
        wanted = offset_attention(on_gpu.double(), offsets, heads, mode, form="gather")
        plain = offset_attention(on_gpu, offsets, heads, mode, form="reference")
        out = offset_attention(on_gpu, offsets, heads, mode, form="triton")

        def error(x: torch.Tensor, wanted: torch.Tensor = wanted) -> float:
            return ((x - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()).item()

        assert error(out) <= 2 * error(plain) + floor


@pytest.mark.gpu
def test_gradient_on_a_gpu() -> None:
    qkv, offsets, heads = layer("modified")
    offsets = offsets.cuda()

    def gradient(form: str, dtype: torch.dtype) -> torch.Tensor:
        x = qkv.to("cuda", dtype).requires_grad_()
        offset_attention(x, offsets, heads, "zero_logit", form=form).square().sum().backward()
        assert x.grad is not None
        return x.grad.double()

    assert (gradient("triton", torch.float32) - gradient("reference", torch.float64)).abs().max() <= 1e-4


def on_a_gpu(tokens: int, heads: int, pictures: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """qkv of heads of 64 channels, and offsets, of a layer."""
    offsets = pack_offsets(head_offsets(tokens - 1, heads, 1, "depth", "modified"), tokens - 1).cuda()
    qkv = torch.randn(pictures, tokens, 3 * heads * 64, generator=torch.Generator().manual_seed(tokens))
    qkv[..., : heads * 64] *= 0.25
    return qkv.to("cuda", dtype), offsets


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["neg_inf", "zero_logit"])
@pytest.mark.parametrize("tokens", [197, 577, 1025])
def test_gradients_on_a_gpu(tokens: int, mode: str, dtype: torch.dtype) -> None:
    """Of each of q, k and v, of the patches and of the class token, against float64."""
    floor = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    qkv, offsets = on_a_gpu(tokens, 6, 2, dtype)
    weights = torch.randn(2, tokens, 6 * 64, generator=torch.Generator().manual_seed(1)).to("cuda", dtype)

    def gradient(form: str, x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        out = offset_attention(x, offsets, 6, mode, form=form)
        return torch.autograd.grad(out, x, weights.to(x.dtype))[0]

    exact, plain, found = gradient("gather", qkv.double()), gradient("reference", qkv), gradient("triton", qkv)
    assert found.dtype == dtype
    assert torch.equal(found, gradient("triton", qkv))
    for ours, theirs, wanted in zip(*(x.chunk(3, dim=-1) for x in (found, plain, exact)), strict=True):
        for rows in (slice(0, 1), slice(1, None)):
            scale = wanted[:, rows].square().mean().sqrt()
            errors = [((x - wanted)[:, rows].square().mean().sqrt() / scale).item() for x in (ours, theirs)]
            assert errors[0] <= 2 * errors[1] + floor


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["neg_inf", "zero_logit"])
def test_memory_of_the_gradient_is_linear(mode: str) -> None:
    def peak(tokens: int) -> float:
        """Bytes above qkv and the result, per token."""
        qkv, offsets = on_a_gpu(tokens, 6, 1, torch.float16)
        out = offset_attention(qkv.requires_grad_(), offsets, 6, mode, form="triton")
        grad = torch.ones_like(out)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.autograd.grad(out, qkv, grad)
        return (torch.cuda.max_memory_allocated() - before) / tokens

    assert peak(16385) <= 1.1 * peak(4097)
