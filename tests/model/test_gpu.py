"""What runs on a CUDA GPU computes what the CPU computes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flashrib.model import build_model
from flashrib.model.attention.window import window_attention
from flashrib.model.attention.window.op import window_attention_triton
from flashrib.model.checkpoint import save_safetensors
from flashrib.model.training.config import TrainConfig
from flashrib.model.training.data import Pair, PatchSampler
from flashrib.runtime.sessions.torch_plain import TorchSession
from tests.official import seeded

pytestmark = pytest.mark.gpu

CASES = [
    (64, 64, (8, 8), 3, 16, 16),
    (37, 53, (16, 16), 6, 32, 18),
    (100, 70, (48, 48), 2, 32, 32),
    (63, 111, (4, 6), 3, 16, 24),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_attention(case: tuple[int, int, tuple[int, int], int, int, int], dtype: torch.dtype) -> None:
    """Error against float64 at most twice that of the plain definition in the same dtype, plus a rounding floor."""
    height, width, window, heads, head_dim, rank = case
    g = seeded(3)
    qkv = torch.randn(2, height, width, 3 * heads * head_dim, generator=g)
    pos_q, pos_k = (torch.randn(heads, window[0] * window[1], rank, generator=g) for _ in range(2))
    args = [t.to("cuda", dtype) for t in (qkv, pos_q * rank**-0.5, pos_k)]
    exact = window_attention(*(t.double() for t in args), window, heads, form="reference")
    plain = window_attention(*args, window, heads, form="reference").double()
    ours = window_attention(*args, window, heads).double()
    rms = exact.square().mean().sqrt()
    error, allowed = ((x - exact).square().mean().sqrt() / rms for x in (ours, plain))
    assert error <= 2 * allowed + torch.finfo(dtype).eps


@pytest.mark.parametrize("logit", [16, 60, 2000], ids="logit-{}".format)
@pytest.mark.parametrize("window", [(8, 8), (16, 16), (48, 48)], ids=str)
def test_one_logit_far_above_the_others(window: tuple[int, int], logit: int) -> None:
    """All logits are 0 but those of one key, whose weight leaves float16: the kernel has to notice and repeat its work."""
    height, width = window
    qkv = torch.zeros(1, height, width, 3 * 32)
    qkv[..., :32] = 1
    qkv[0, height // 2 + 1, 3, 32:64] = logit / 32
    qkv[..., 64:] = torch.randn(height, width, 32, generator=seeded(9))
    codes = torch.zeros(1, height * width, 16)
    args = [t.to("cuda", torch.float16) for t in (qkv, codes, codes)]
    exact = window_attention(*(t.double() for t in args), window, 1, form="reference")
    ours = window_attention(*args, window, 1).double()
    assert (ours - exact).square().mean().sqrt() <= 1e-3 * exact.square().mean().sqrt()


STEEP = [
    (window, head_dim, rank, shifted)
    for window in (8, 16, 32, 64, 96)
    for head_dim, rank in ((16, 16), (16, 24), (16, 32), (30, 18), (32, 32))
    for shifted in (False, True)
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", STEEP, ids=str)
def test_logits_that_leave_the_range_of_16_bits(case: tuple[int, int, int, bool], dtype: torch.dtype) -> None:
    """Every row of the table of blocks has to repeat its work with the online softmax; with gate and biases, as networks call it."""
    side, head_dim, rank, shifted = case
    heads, g = 2, seeded(11)
    inner, shift = heads * head_dim, (side // 2, side // 2) if shifted else (0, 0)
    qkv = torch.randn(1, side + 3, side, 3 * inner, generator=g)
    qkv[..., :inner] *= 12.0 if dtype == torch.float16 else 40.0
    codes = [torch.randn(heads, side * side, rank, generator=g) for _ in range(2)]
    gate = torch.randn(1, side + 3, side, inner, generator=g)
    args = [t.to("cuda", dtype) for t in (qkv, *codes, gate)]
    qkv_bias, gate_bias = torch.randn(3 * inner, generator=g).cuda(), torch.randn(inner, generator=g).cuda()
    qkv_bias[inner : 2 * inner] = 0  # that of k is not read
    exact = [(args[0] + qkv_bias).to(dtype).double(), *(t.double() for t in args[1:])]  # queries are rounded once more
    wanted = window_attention(*exact[:3], (side, side), heads, shift, form="reference")
    wanted *= torch.sigmoid(exact[3] + gate_bias)
    found = window_attention_triton(*args[:3], (side, side), heads, shift, args[3], qkv_bias, gate_bias).double()
    assert (found - wanted).square().mean() <= (8 * torch.finfo(dtype).eps) ** 2 * wanted.square().mean()


def test_session_equals_cpu(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_safetensors(tmp_path / "w.safetensors", build_model("sst-light", 2))
    batch = torch.rand(1, 3, 70, 100, generator=seeded(4)).numpy()
    outputs = []
    for device in ("cpu", "cuda"):
        session = TorchSession(tmp_path / "w.safetensors", device=device)
        outputs.append(session.run(batch))
        session.close()
    assert np.abs(outputs[0] - outputs[1]).max() <= 1e-4


def test_patches_equal_cpu() -> None:
    """The same pictures, corners and symmetries give the same patches, as integers (x / 255 may round otherwise on a GPU)."""
    rng = np.random.default_rng(0)
    pairs = [
        Pair(rng.integers(0, 256, (2 * h, 2 * w, 3), dtype=np.uint8), rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
        for h, w in ((20, 30), (33, 17))
    ]
    config = TrainConfig(data=("x",), patch=16)
    which = torch.arange(32) % 2
    corner, symmetry = torch.randint(2, (32, 2), generator=seeded(6)), torch.randint(8, (32,), generator=seeded(7))
    patches = []
    for device in ("cpu", "cuda"):
        sampler = PatchSampler(pairs, config, torch.device(device))
        patch = sampler.cut(sampler.high, which.to(device), corner.to(device), symmetry.to(device), 2)
        patches.append((patch * 255).round().to(torch.uint8).cpu())
        low, high = sampler.sample(64, torch.Generator(device).manual_seed(1))
        assert low.shape == (64, 3, 16, 16)
        assert high.shape == (64, 3, 32, 32)
    assert torch.equal(*patches)


def test_bf16_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    network = build_model("sst-light", 2).cuda().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-4, fused=True)
    low = torch.rand(2, 3, 64, 64, generator=seeded(5)).cuda()
    high = torch.nn.functional.interpolate(low, scale_factor=2.0, mode="bicubic")
    losses = []
    for _ in range(30):
        with torch.autocast("cuda", torch.bfloat16):
            output = network(low)
        assert output.dtype == torch.float32  # the residual stream and the picture stay in float32
        loss = torch.nn.functional.l1_loss(output, high)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
