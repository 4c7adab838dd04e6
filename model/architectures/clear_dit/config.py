"""Configuration of the transformer of FLUX with CLEAR's attention, at any size, and the five published variants."""

import dataclasses
import math
from typing import Any

from flashrib.model.config import Input, NetworkConfig
from flashrib.runtime.errors import UsageError

LARGEST_SIDE = 1024  # tokens of a side (16384 pixels) that an exported file has angles for
BASE = 4608  # tokens of the pictures that FLUX was trained on, 64*64 + 512


@dataclasses.dataclass(frozen=True)
class ClearConfig(NetworkConfig):
    """Configuration of a transformer. Its picture is a map of tokens of 16x16 pixels, and all sides are in tokens.

    Attributes:
        name: preset name, or "clear-custom".
        radius: of the disc that a token of the picture sees, strict; None: the attention of FLUX, everything sees everything. Shapes do
            not tell it.
        down: side of the cells that are pooled into additional keys, 4 in the published variants; 0: none.
        layers: double blocks, with weights of their own for text and picture.
        single_layers: single blocks.
        heads: heads of every attention.
        head_dim: channels D of a head.
        in_channels: channels of a token of the latent picture.
        joint_dim: channels of a token of the text encoder T5.
        pooled_dim: channels of the text vector of CLIP.
        guidance: whether the strength of guidance is an input.
        axes: channels of a head that turn with the first axis, which is 0 everywhere, the row and the column.
        text: text tokens of an exported file.
        proportional: scale logits by the root of log_4608 of the number of tokens.
        ntk_factor: factor of the base 10000 of the angles; 10 for pictures much larger than those of the training.
    """

    name: str
    radius: int | None
    down: int = 0
    layers: int = 19
    single_layers: int = 38
    heads: int = 24
    head_dim: int = 128
    in_channels: int = 64
    joint_dim: int = 4096
    pooled_dim: int = 768
    guidance: bool = True
    axes: tuple[int, int, int] = (16, 56, 56)
    text: int = 512
    proportional: bool = False
    ntk_factor: float = 1.0

    family = "clear"
    task = "denoise"
    whole_picture = True  # text tokens see everything

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        if sum(self.axes) != self.head_dim or any(axis % 2 for axis in self.axes):
            raise UsageError(f"axes {self.axes} must be even and add up to the {self.head_dim} channels of a head")
        if self.radius is not None and self.radius < 1:
            raise UsageError(f"radius {self.radius} must be at least 1, or None for full attention")
        if self.down and self.radius is None:
            raise UsageError(f"down = {self.down} pools keys beside a disc: give a radius")
        if self.text < 1:
            raise UsageError(f"text = {self.text}: at least 1 token")

    @property
    def dim(self) -> int:
        """Channels C of a token."""
        return self.heads * self.head_dim

    @property
    def alignment(self) -> int:
        return max(self.down, 1)

    @property
    def minimum(self) -> int:
        return max(self.down, 2)

    def open_sizes(self, height: int, width: int) -> dict[str, int]:
        """Rounded up to sides that can be pooled."""
        step = self.alignment
        return super().open_sizes(-(-height // step) * step, -(-width // step) * step)

    def inputs(self) -> tuple[Input, ...]:
        step = max(self.down, 1)
        height, width = step * max(5 // step, 2), step * max(7 // step, 3)
        tensors = (
            Input(
                "hidden_states", ("batch", "height", "width", self.in_channels), (1, height, width, self.in_channels)
            ),
            Input("encoder_hidden_states", ("batch", self.text, self.joint_dim), (1, self.text, self.joint_dim)),
            Input("pooled_projections", ("batch", self.pooled_dim), (1, self.pooled_dim)),
            Input("timestep", ("batch",), (1,)),
        )
        return (*tensors, Input("guidance", ("batch",), (1,))) if self.guidance else tensors

    def facts(self) -> dict[str, Any]:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del own["name"], own["in_channels"], own["heads"]
        own["axes"] = list(self.axes)
        return super().facts() | {
            "channels": self.in_channels,
            "heads": (self.heads,),
            "architecture_config": own,
        }

    def logit_factor(self, tokens: Any) -> Any:
        """What the logits are scaled by beside D^-1/2, for text and picture of `tokens` tokens.

        The factor 10 of the pooled variants is the official code's, which does not explain it.
        """
        if not self.proportional:
            return 1.0
        return math.sqrt(math.log(tokens * (10 if self.down else 1), BASE))


_PRESETS: dict[str, tuple[int | None, int]] = {
    "flux-dev": (None, 0),
    "clear-local-8": (8, 0),
    "clear-local-16": (16, 0),
    "clear-local-32": (32, 0),
    "clear-local-8-down-4": (8, 4),
    "clear-local-16-down-4": (16, 4),
}
PRESETS = tuple(_PRESETS)


def preset(name: str, scale: int) -> ClearConfig:
    """Return the configuration `name`, one of `PRESETS`; `scale` is 1."""
    radius, down = _PRESETS[name]
    return ClearConfig(name, radius, down)


def overlay_shapes(config: ClearConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a CLEAR file: 380 tensors at full size, 437 with pooling."""
    dim = config.dim
    shapes: dict[str, tuple[int, ...]] = {}
    for prefix, count, names in (
        ("transformer_blocks", config.layers, ("to_q", "to_k", "to_v", "to_out.0")),
        ("single_transformer_blocks", config.single_layers, ("to_q", "to_k", "to_v")),
    ):
        for i in range(count):
            for name in names:
                shapes[f"{prefix}.{i}.attn.{name}.weight"] = (dim, dim)
                shapes[f"{prefix}.{i}.attn.{name}.bias"] = (dim,)
            if config.down:
                shapes[f"{prefix}.{i}.attn.processor.spatial_weight"] = (1, 1, 1, config.down, 1, config.down, 1)
    return shapes
