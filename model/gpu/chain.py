"""`Chain`: what stands between two attention layers or 3x3 convolutions, in as few passes over the map as are fastest."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import pad

from flashrib.model.gpu.dispatch import operators
from flashrib.model.gpu.tuning import CHUNK, fits_chain

ALIGNED = 8  # widths of maps in memory are multiples of this many channels: 16 bytes

Affine = tuple[Tensor, Tensor]  # weight and bias
Product = tuple[Tensor, Tensor | None]  # weight, and bias if the pass adds it


def up(width: int, multiple: int = ALIGNED) -> int:
    """Smallest multiple of `multiple` that is >= `width`."""
    return -(-width // multiple) * multiple


class Chain(nn.Module):
    """Steps on a channels-last map, each only where it is asked for:

        a = depthwise 3x3 of the source, or source + gelu(depthwise 3x3 of the source)
        x = a @ weight + bias + residual
        n = LayerNorm of x, with gain and offset
        y = n @ next_weight + next_bias, or its gelu

    Maps are as wide as their channels completed to a multiple of 8; the channels added are zero everywhere. The depthwise step is a
    pass of its own. The others are one up to 64 channels (`operators.chain`), but for a product with nothing around it. Above that,
    or where the weights are too many for a multiprocessor, the library does the first product and the second one where no gelu
    follows, and `operators.wide` the rest.

    The library adds a product to a map in place, but not also a bias. So the residual may be a map that has the biases of the products
    to come already, which the passes that read it in between subtract: see `ahead` and `start`.

    Args:
        dtype: of weights and maps; biases, taps and statistics are float32.
        width: channels of the source.
        dim: channels of x.
        taps: weight (width, 1, 3, 3) and bias (width) of the depthwise convolution.
        ffn: add gelu of the depthwise convolution to the source, instead of taking its place.
        product: weight (dim, width) and bias (dim) or None; None: x is the source, plus bias and residual.
        bias: (dim), added to x where there is no `product`.
        norm: gain and offset (dim) of the LayerNorm; None: no LayerNorm.
        following: weight (out, dim) and bias (out) or None of the second product.
        gelu: y is passed through gelu.
        keep_x, keep_n: x and n are wanted.
        ahead: (dim), what the residual has more than it should, the bias of `product` included. x takes its place in memory and has
            this more, without that bias. None: nothing; only above 64 channels.
        start: (dim), x + start is wanted too, for products to come. None: not; only above 64 channels and without a product.
    """

    linear_weight: Tensor
    linear_bias: Tensor | None
    sum_weight: Tensor
    sum_bias: Tensor | None

    def __init__(
        self,
        dtype: torch.dtype,
        width: int,
        dim: int,
        *,
        taps: Affine | None = None,
        ffn: bool = False,
        product: Product | None = None,
        bias: Tensor | None = None,
        norm: Affine | None = None,
        following: Product | None = None,
        gelu: bool = False,
        keep_x: bool = False,
        keep_n: bool = False,
        ahead: Tensor | None = None,
        start: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.ffn, self.gelu, self.keep_x, self.keep_n = dim, ffn, gelu, keep_x, keep_n
        self.out_width = 0 if following is None else up(following[0].shape[0])
        self._vector("taps", None if taps is None else taps[0].flatten(1).T)
        self._vector("taps_bias", None if taps is None else taps[1])
        self.wide, self.normed = not fits_chain(dim, 0 if product is None else width, self.out_width), norm is not None
        self.plain = product is not None and norm is None and following is None
        self.in_place = ahead is not None
        # products for the library: (out, in) and the bias in the same dtype
        first = product if self.wide else None
        self.split = self.wide and following is not None and not gelu
        if first is not None and ahead is not None:
            first = first[0], None
        self._library("sum_weight", "sum_bias", first, dtype)
        alone = product if self.plain else following if self.split else None
        self._library("linear_weight", "linear_bias", alone, dtype)
        # what the kernels do
        self._matrix("weight", None if self.wide else product, dtype)
        if product is not None:
            bias = product[1]
        bias = torch.zeros(dim) if bias is None else bias.detach()
        if self.wide and product is not None:
            bias = torch.zeros(dim) if ahead is None else bias - ahead
        self._vector("bias", bias)
        self._vector("start", start)
        self._vector("gain", None if norm is None else norm[0])
        self._vector("offset", None if norm is None else norm[1])
        inside = None if self.split else following
        self._matrix("next_weight", inside, dtype)
        next_bias = None if inside is None else inside[1]
        if inside is not None and next_bias is None:
            next_bias = torch.zeros(self.out_width)
        self._vector("next_bias", next_bias)

    def _library(self, weight: str, bias: str, layer: Product | None, dtype: torch.dtype) -> None:
        """Keep a layer as the library takes it: (out, in), both completed to multiples of 8 by zeros."""
        matrix, vector = None, None
        if layer is not None:
            rows, columns = (-n % ALIGNED for n in layer[0].shape)
            matrix = pad(layer[0].detach(), (0, columns, 0, rows)).to(dtype).contiguous()
            vector = None if layer[1] is None else pad(layer[1].detach(), (0, rows)).to(dtype)
        self.register_buffer(weight, matrix)
        self.register_buffer(bias, vector)

    def _vector(self, name: str, value: Tensor | None) -> None:
        if value is not None:
            value = pad(value.detach(), (0, -value.shape[-1] % CHUNK)).float().contiguous()
        self.register_buffer(name, value)

    def _matrix(self, name: str, layer: Product | None, dtype: torch.dtype) -> None:
        value = None
        if layer is not None:
            value = layer[0].detach().T
            value = pad(value, (0, -value.shape[1] % CHUNK, 0, -value.shape[0] % CHUNK)).to(dtype).contiguous()
        self.register_buffer(name, value)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Source (B, H, W, width) and, if there is one, residual (B, H, W, dim) -> those of x, x + start, n and y that are wanted.

        Maps are taken out of the list, so that each is freed after its last use.
        """
        if self.taps is not None:
            source = maps[0].contiguous()
            maps[0] = operators(source).depthwise(source, self.taps, self.taps_bias, self.ffn)
            del source
        if self.plain and len(maps) == 1:
            return [F.linear(maps.pop().contiguous(), self.linear_weight, self.linear_bias)]
        if self.wide:
            return self._wide(maps)
        residual = maps.pop() if len(maps) > 1 else None
        source = maps.pop().contiguous()
        outputs: list[Tensor] = operators(source).chain(
            source,
            residual,
            self.weight,
            self.bias,
            self.gain,
            self.offset,
            self.next_weight,
            self.next_bias,
            self.dim,
            self.out_width,
            self.gelu,
            self.keep_x,
            self.keep_n,
        )
        return outputs

    def _wide(self, maps: list[Tensor]) -> list[Tensor]:
        outputs = self._sum_and_norm(maps)
        if self.split:
            outputs.append(F.linear(outputs[-1], self.linear_weight, self.linear_bias))
            if self.normed and not self.keep_n:
                del outputs[-2]
        return outputs

    def _sum_and_norm(self, maps: list[Tensor]) -> list[Tensor]:
        """All but the second product of the library, where the maps that came are not needed any more."""
        residual = maps.pop() if len(maps) > 1 else None
        source = maps.pop().contiguous()
        outputs: list[Tensor] = []
        keep_x = self.keep_x
        if self.sum_weight is not None:
            if self.in_place:
                assert residual is not None
                residual.flatten(0, 2).addmm_(source.flatten(0, 2), self.sum_weight.T)
                source, residual = residual, None
                if keep_x:
                    outputs, keep_x = [source], False
            else:
                source = F.linear(source, self.sum_weight, self.sum_bias)
        if keep_x or self.normed or self.next_weight is not None:
            keep_n = self.normed and (self.keep_n or self.split)
            outputs += operators(source).wide(
                source,
                residual,
                self.bias,
                self.start,
                self.gain,
                self.offset,
                self.next_weight,
                self.next_bias,
                self.dim,
                0 if self.split else self.out_width,
                keep_x,
                keep_n,
            )
        return outputs
