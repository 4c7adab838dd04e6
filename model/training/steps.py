"""What makes a training step fast: layers compiled one by one, and the step as a CUDA graph."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flashrib.model.layers import WindowAttention
from flashrib.model.training.config import TrainConfig

WARM_UP = 3  # steps before the recording: compilers, cuDNN's search, allocators


def compile_layers(network: nn.Module) -> None:
    """Compile every module that holds an attention: a few distinct layers instead of one graph of all blocks, so it takes seconds."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for module in network.modules():
        if any(isinstance(child, WindowAttention) for child in module.children()):
            module.compile()


def autocast_of(config: TrainConfig, device: torch.device) -> Callable[[], torch.autocast]:
    """What makes the context of a forward pass; without a cache, which a CUDA graph cannot have."""
    on = config.precision == "bf16"
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=on, cache_enabled=False)


class GraphedStep:
    """Forward and backward pass of a network as one CUDA graph, so that thousands of launches from Python cost nothing.

    Args:
        network: its parameters' gradients are written by `replay`; they stay the same tensors.
        loss: inputs -> a scalar; called a few times, on the CUDA device, with autocast's cache off.
        inputs: of the shapes that all steps have; `__call__` copies new ones into them.
    """

    def __init__(self, network: nn.Module, loss: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        self.inputs = [x.clone(memory_format=torch.preserve_format) for x in inputs]
        parameters = [p for p in network.parameters() if p.requires_grad]
        Stream: Any = torch.cuda.Stream  # has no types
        side = Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                for parameter in parameters:
                    parameter.grad = None
                loss(*self.inputs).backward()  # type: ignore[no-untyped-call]  # untyped in torch
        torch.cuda.current_stream().wait_stream(side)
        for parameter in parameters:
            parameter.grad = None
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # NCCL has threads of its own
            self.loss = loss(*self.inputs)
            self.loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        self.gradients = [(p, p.grad) for p in parameters if p.grad is not None]

    def replay(self) -> Any:
        """The step once more on the inputs of before."""
        self.graph.replay()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Gradients of new inputs, in the parameters; returns the loss, which the next call overwrites."""
        for mine, new in zip(self.inputs, inputs, strict=True):
            mine.copy_(new)
        self.graph.replay()
        for parameter, gradient in self.gradients:  # somebody may have taken them away between steps
            parameter.grad = gradient
        return self.loss
