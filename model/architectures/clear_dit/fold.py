"""CLEAR: training form -> deployment form."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from flashrib.model.architectures.clear_dit.deploy import DeployedClear
from flashrib.model.architectures.clear_dit.load import assign
from flashrib.model.architectures.clear_dit.network import (
    ClearAttention,
    ClearTransformer,
    DoubleBlock,
    FeedForward,
    SingleBlock,
)

_NORMS = ("norm_q", "norm_k")  # stay float32: D^-1/2 in bfloat16 would be a rounding of its own


def fold(network: ClearTransformer, *, head_multiple: int = 1, dtype: torch.dtype = torch.float32) -> DeployedClear:
    """See `flashrib.model.fold.fold`; heads have the width that the kernels want, so `head_multiple` changes nothing."""
    return fold_onto(network, dtype, next(network.parameters()).device)


def fold_onto(
    network: ClearTransformer, dtype: torch.dtype, device: torch.device, consume: bool = False
) -> DeployedClear:
    """Return the deployment form, made tensor by tensor.

    Args:
        network: the training form.
        dtype: of the result, but for the weights of RMS norms, which are float32.
        device: of the result.
        consume: free each block of `network` once it is folded, so that large weights never stand twice in memory.
    """
    config = network.config
    with torch.device("meta"):
        result = DeployedClear(config)
    result.rotation = type(result.rotation)(config).to(device)

    def put(prefix: str, tensors: Iterator[tuple[str, Tensor]]) -> None:
        for key, value in tensors:
            kept = key.rpartition(".")[2] in _NORMS
            kind = torch.promote_types(dtype, torch.float32) if kept else dtype
            assign(result, f"{prefix}{key}", value.detach().to(device, kind, copy=not consume))

    for source, target in (
        (network.time_text_embed, "embedding"),
        (network.context_embedder, "context_embedder"),
        (network.x_embedder, "x_embedder"),
        (network.norm_out.linear, "modulation"),
        (network.proj_out, "proj_out"),
    ):
        put(f"{target}.", source.named_parameters())
    for index, block in enumerate(network.transformer_blocks):
        assert isinstance(block, DoubleBlock)
        put(f"double_blocks.{index}.", _double(block))
        if consume:
            network.transformer_blocks[index] = nn.Identity()
    for index, block in enumerate(network.single_transformer_blocks):
        assert isinstance(block, SingleBlock)
        put(f"single_blocks.{index}.", _single(block))
        if consume:
            network.single_transformer_blocks[index] = nn.Identity()
    return result.eval().requires_grad_(False)


def _double(block: DoubleBlock) -> Iterator[tuple[str, Tensor]]:
    attention = block.attn
    for name, module in (
        ("modulation", block.norm1.linear),
        ("text_modulation", block.norm1_context.linear),
        ("out", attention.to_out[0]),
        ("text_out", attention.to_add_out),
    ):
        yield from _named(name, module)
    yield from _attention(attention)
    text = (attention.add_q_proj, attention.add_k_proj, attention.add_v_proj)
    yield from _stream("attention.text", text, attention.norm_added_q.weight, attention.norm_added_k.weight)
    for name, mlp in (("mlp", block.ff), ("text_mlp", block.ff_context)):
        assert isinstance(mlp, FeedForward)
        yield from _named(f"{name}.first", mlp.net[0].get_submodule("proj"))
        yield from _named(f"{name}.second", mlp.net[2])


def _single(block: SingleBlock) -> Iterator[tuple[str, Tensor]]:
    yield from _named("modulation", block.norm.linear)
    yield from _named("mlp", block.proj_mlp)
    yield from _attention(block.attn)
    dim = block.attn.config.dim
    yield "out.weight", block.proj_out.weight[:, :dim].contiguous()
    yield "out.bias", block.proj_out.bias
    yield "mlp_out.weight", block.proj_out.weight[:, dim:].contiguous()


def _attention(attention: ClearAttention) -> Iterator[tuple[str, Tensor]]:
    image = (attention.to_q, attention.to_k, attention.to_v)
    yield from _stream("attention.image", image, attention.norm_q.weight, attention.norm_k.weight)
    weight = attention.pool_weight()
    if weight is not None:
        yield "attention.pool", weight.reshape(weight.shape[3], weight.shape[5])


def _stream(
    name: str, projections: tuple[nn.Linear, ...], norm_q: Tensor, norm_k: Tensor
) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.qkv.weight", torch.cat([p.weight for p in projections])
    yield f"{name}.qkv.bias", torch.cat([p.bias for p in projections])
    yield f"{name}.norm_q", norm_q.double() * len(norm_q) ** -0.5
    yield f"{name}.norm_k", norm_k.double()


def _named(name: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for key, value in module.named_parameters():
        yield f"{name}.{key}", value
