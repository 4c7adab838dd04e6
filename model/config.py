"""What configurations of networks share; each architecture has its own in `model/architectures/<name>/config.py`. Needs no torch.

A configuration holds exactly what the constructor of a network needs: what a checkpoint's shapes tell (dimension, heads, ranks, FFN
width, gate, upsampler, scale) and what they do not (window sides) stand side by side.
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal

from flashrib.runtime.errors import UsageError

Gate = Literal["Linear", "DWC"] | None
UpsamplerType = Literal["pixelshuffle_direct", "pixelshuffle", "nn+conv"]
Window = tuple[int, int]

SCALES = (2, 3, 4)


@dataclasses.dataclass(frozen=True)
class Input:
    """A tensor that a network takes.

    Attributes:
        name: of the argument of `forward`, and of the input of an exported file.
        shape: an integer where the size is fixed; a name where it is open, such as "batch", "height": axes of one name are equal.
        example: sizes to trace a network with, 1 for the batch. Open axes have sizes that are multiples of nothing, so that nothing
            in the graph depends on them by accident.
        dtype: in NumPy's words.
    """

    name: str
    shape: tuple[int | str, ...]
    example: tuple[int, ...]
    dtype: str = "float32"

    def sizes(self, **chosen: int) -> tuple[int, ...]:
        """The example's shape, with the sizes `chosen` for its open axes."""
        return tuple(
            chosen.get(axis, size) if isinstance(axis, str) else axis
            for axis, size in zip(self.shape, self.example, strict=True)
        )


class NetworkConfig:
    """Base of every configuration, a frozen dataclass with a field `name`: what is asked of any network, with its neutral value.

    Attributes:
        name: name of a preset, or "<family>-custom".
        family: of the architecture, see `flashrib.model.architectures.registry`.
        task: what the network is for: "upscale", "classify" or "denoise".
        whole_picture: a pixel of the result depends on the whole input, so that tiles are an approximation.
    """

    name: str
    family: ClassVar[str]
    task: ClassVar[str]
    whole_picture: ClassVar[bool] = False

    @property
    def scale(self) -> int:
        """Magnification."""
        return 1

    @property
    def alignment(self) -> int:
        """Sides that are multiples of it, in pixels, need no padding."""
        return 1

    @property
    def minimum(self) -> int:
        """Smallest side of an input, in pixels."""
        return 1

    def open_sizes(self, height: int, width: int) -> dict[str, int]:
        """Sizes of the open axes of `inputs` that go with a picture of `height` x `width`, which are two of them."""
        return {"height": height, "width": width}

    def inputs(self) -> tuple[Input, ...]:
        """The tensors that the network takes, in order."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Fields of an artifact's description (`flashrib.runtime.artifacts.info`) that the configuration knows, in JSON's types or tuples.

        What keys and shapes of a checkpoint do not tell, and has no field of its own there, belongs under "architecture_config".
        """
        return {
            "architecture": self.name,
            "task": self.task,
            "scale": self.scale,
            "alignment": self.alignment,
            "minimum": self.minimum,
            "whole_picture": self.whole_picture,
        }


@dataclasses.dataclass(frozen=True)
class UpsamplerConfig:
    """The head of a network: features -> picture.

    Attributes:
        kind: "pixelshuffle_direct", "pixelshuffle" or "nn+conv".
        scale: magnification r, 1..8; of "nn+conv" 3 or a power of two.
        intermediate_dim: channels n between the convolutions; "pixelshuffle_direct" has none, and 64 stands here whatever is passed.
    """

    kind: UpsamplerType = "pixelshuffle_direct"
    scale: int = 2
    intermediate_dim: int = 64

    def __post_init__(self) -> None:
        if self.scale not in ((1, 2, 3, 4, 8) if self.kind == "nn+conv" else range(1, 9)):
            raise UsageError(f"scale {self.scale}: a head {self.kind} has none such")
        if self.kind == "pixelshuffle_direct":
            object.__setattr__(self, "intermediate_dim", 64)


DIRECT = UpsamplerConfig()


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """A window attention layer with RIB, in any of its forms (training, deployment, GPU).

    Attributes:
        dim: channels C of the feature map.
        window: (rows, columns) of a window, in pixels.
        heads: number of heads; divides `dim`.
        rank: rank R of the bias.
        rib_hidden: width M of the bias MLP.
        rib_freqs: number L of octaves of its coordinate features.
        shifted: roll the map by half a window.
        gate: form of the gate.
        head_dim: channels D of a head as the operator sees them; 0 takes dim / heads. More are filled with zero channels.
    """

    dim: int
    window: Window
    heads: int
    rank: int
    rib_hidden: int = 32
    rib_freqs: int = 10
    shifted: bool = False
    gate: Gate = None
    head_dim: int = 0

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise UsageError(f"the number of heads must divide dim = {self.dim}, got {self.heads}")
        if not self.head_dim:
            object.__setattr__(self, "head_dim", self.dim // self.heads)

    @property
    def shift(self) -> Window:
        """Rows and columns that the map is rolled by."""
        return (self.window[0] // 2, self.window[1] // 2) if self.shifted else (0, 0)

    @property
    def inner(self) -> int:
        """Channels of all heads."""
        return self.heads * self.head_dim


class UpscalerConfig(NetworkConfig):
    """Base of the super-resolution networks with window attention, whose blocks are all alike.

    Attributes:
        dim: channels C of the feature map.
        blocks: number of blocks.
        upsampler: the head.
    """

    task = "upscale"

    dim: int
    blocks: int
    gate: Gate
    upsampler: UpsamplerConfig

    @property
    def attentions(self) -> tuple[AttentionConfig, ...]:
        """The attention layers of a block."""
        raise NotImplementedError

    @property
    def scale(self) -> int:
        return self.upsampler.scale

    @property
    def alignment(self) -> int:
        return math.lcm(*(side for layer in self.attentions for side in layer.window))

    @property
    def minimum(self) -> int:
        """Smallest side whose reflection without repeating the edge still fills the largest window."""
        return max(side for layer in self.attentions for side in layer.window) // 2 + 1

    def inputs(self) -> tuple[Input, ...]:
        side = max(self.minimum, 2) + 3
        return (Input("input", ("batch", 3, "height", "width"), (1, 3, side, side + 4)),)

    def facts(self) -> dict[str, Any]:
        layers = self.attentions
        return super().facts() | {
            "windows": tuple(layer.window for layer in layers),
            "ranks": tuple(layer.rank for layer in layers),
            "heads": tuple(layer.heads for layer in layers),
        }
