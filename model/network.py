"""Base of the networks in their training form, with the official names of their parameters."""

from torch import Tensor, nn

from flashrib.model.config import NetworkConfig, UpscalerConfig
from flashrib.runtime.errors import UsageError


class Network(nn.Module):
    """A network of any task.

    Attributes:
        config: what it was made from.
    """

    config: NetworkConfig

    def reference(self, *inputs: Tensor) -> Tensor:
        """The official test pipeline, which every deployment form must equal: the tensors of `config.inputs()` -> the result."""
        return self(*inputs)

    def upscale(self, picture: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in 0..1 -> (B, 3, rH, rW), not clamped: the official test pipeline, for networks with the task "upscale"."""
        raise UsageError(f"{self.config.name} does not upscale")

    def initialise(self) -> None:
        """Give the parameters the random values that the official training starts from, where they are not PyTorch's defaults."""

    def undecayed(self) -> set[str]:
        """Names of parameters without weight decay."""
        return set()

    def with_noise(self, source: str | int) -> "Network":
        """The same network with its noise from elsewhere, sharing the parameters: "input", "none" (zeros) or a seed, whose noise is inside.

        Raises:
            UsageError: it takes no noise.
        """
        if source == "input":
            return self
        raise UsageError(f"{self.config.name} takes no noise: leave --noise-seed and --no-noise out")

    def unquantized(self) -> set[str]:
        """Prefixes of the names of modules whose products stay as they are in quantization-aware finetuning."""
        return set()


class Upscaler(Network):
    """A super-resolution network: RGB (B, 3, H, W) in 0..1 -> (B, 3, rH, rW), not clamped."""

    config: UpscalerConfig

    def upscale(self, picture: Tensor) -> Tensor:
        """The official test pipeline, on the whole picture."""
        return self(picture)

    def reference(self, *inputs: Tensor) -> Tensor:
        return self.upscale(*inputs)
