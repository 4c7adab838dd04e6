"""One denoising step on a device, as a CUDA graph per size where there is a GPU."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from flashrib.model.architectures.clear_dit.config import ClearConfig
from flashrib.runtime.errors import UsageError

_Shapes = tuple[torch.Size, ...]


class DenoiseStep:
    """Runs a transformer step after step: sizes may change from call to call.

    Not for several threads at once. Results of a recorded size are overwritten by the next call of that size.
    """

    def __init__(self, network: nn.Module, config: ClearConfig, graphs: int = 2) -> None:
        """Run `network`, a `DeployedClear` (or a `BandedClear`, with `graphs=0`).

        Args:
            network: on its device, in the dtype to compute in.
            config: its configuration.
            graphs: sizes whose recordings are kept, the last used ones; each has the activations of a step. 0: nothing is recorded.
        """
        self.network, self.config = network, config
        self.graphs = graphs
        self.recorded: OrderedDict[_Shapes, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = OrderedDict()
        some = next(network.parameters())
        self.device, self.dtype = some.device, some.dtype

    @torch.inference_mode()
    def __call__(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """See `flashrib.model.architectures.clear_dit.network.ClearTransformer.forward`; inputs may be of any float type and device.

        Raises:
            UsageError: no map of tokens, a side that cannot be pooled, or guidance missing where the model wants it.
        """
        self._check(hidden_states, guidance)
        given = (hidden_states, encoder_hidden_states, pooled_projections, timestep, guidance)
        inputs = [x for x in given if x is not None]
        if self.device.type != "cuda" or self.graphs == 0:
            # time and guidance stay as exact as they come: times 1000 in bfloat16, 7.5 would become 7488
            casts = [x.to(self.device, self.dtype if i < 3 else torch.float32) for i, x in enumerate(inputs)]
            y: Tensor = self.network(*casts)
            return y
        key = tuple(x.shape for x in inputs)
        if key not in self.recorded:
            while len(self.recorded) >= self.graphs:
                self.recorded.popitem(last=False)
            self.recorded[key] = self._record(inputs)
        self.recorded.move_to_end(key)
        graph, places, result = self.recorded[key]
        for place, x in zip(places, inputs, strict=True):
            place.copy_(x)
        graph.replay()
        return result

    def _check(self, hidden_states: Tensor, guidance: Tensor | None) -> None:
        step = self.config.alignment
        shape = tuple(hidden_states.shape)
        if len(shape) != 4 or shape[3] != self.config.in_channels or shape[1] % step or shape[2] % step:
            raise UsageError(
                f"hidden_states {shape}: expected (B, H, W, {self.config.in_channels}), the packed latents on their grid, H and W"
                f" multiples of {step} (pictures of multiples of {16 * step} pixels)"
            )
        if (guidance is None) == self.config.guidance:
            wants = "wants" if self.config.guidance else "does not take"
            raise UsageError(f"{self.config.name} {wants} guidance")

    def _record(self, inputs: list[Tensor]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        places = [
            torch.empty(x.shape, dtype=self.dtype if i < 3 else torch.float32, device=self.device)
            for i, x in enumerate(inputs)
        ]
        for place, x in zip(places, inputs, strict=True):
            place.copy_(x)
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # untyped in torch
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            self.network(*places)  # compiles kernels, makes lists of blocks
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result: Tensor = self.network(*places)
        return graph, places, result
