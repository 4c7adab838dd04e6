"""One GPU that takes tiles as they are: copies in, computes and copies out at the same time, without waiting for any of it.

Pixels travel as they are (a byte per value, not four) and are converted on the GPU. Three streams and two sets of buffers:

    copy in      | tile 2      | tile 3      |
    compute             | tile 1 .......... | tile 2 .......... |
    copy out                                | tile 1 |

A shape that comes again is recorded as a CUDA graph, unless it is so large that launching its kernels takes no share of the time: the
limit is higher where several GPUs work, since Python launches one kernel at a time.
"""

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flashrib.runtime import stopping
from flashrib.runtime.errors import DeviceFailedError, OutOfMemoryError, SessionError
from flashrib.runtime.noise import padded
from flashrib.runtime.sessions.protocol import Batch, Pixels, not_finite, wrong_shape
from flashrib.runtime.sessions.torch_gpu.buffers import Slot
from flashrib.runtime.sessions.torch_gpu.pixels import to_batch, to_pixels
from flashrib.runtime.sessions.torch_plain import full_float32, one_line_errors

if TYPE_CHECKING:
    import torch

GRAPH_PIXELS = 512 * 512
"""Input pixels up to which a shape is recorded where one GPU works alone; above, a graph would only take memory."""

GRAPH_SHARE = 1 / 8
"""Part of a GPU's memory that a recorded shape may need where several GPUs work, whose kernels Python launches one by one."""

GRAPHS = 8
"""Shapes whose graphs are kept, the latest ones."""

# Python code of networks, compilers and recording run on one thread at a time; launching a graph needs no lock.
_LOCK = threading.Lock()

Key = tuple[tuple[int, ...], str]  # shape and dtype of a tile, or shape of a batch
Work = Callable[
    ["torch.Tensor", str], tuple["torch.Tensor", "torch.Tensor"]
]  # input and its name -> result, whether it is finite


class _Graph(NamedTuple):
    """A recorded shape: what it reads, what it writes, and whether that is finite."""

    graph: Any
    source: "torch.Tensor"
    result: "torch.Tensor"
    finite: "torch.Tensor"


class GpuWorker:
    """Runs a network on one GPU; follows `flashrib.runtime.sessions.protocol.TileWorker`.

    Attributes:
        device: "cuda:0", ...
        failed: it will not run another tile.
    """

    ahead = 2

    def __init__(
        self,
        network: Callable[..., "torch.Tensor"],
        device: str,
        dtype: "torch.dtype",
        scale: int,
        noise_multiple: int = 0,
        alone: bool = True,
    ) -> None:
        """Make the streams.

        Args:
            network: maps (B, 3, H, W) of `dtype`, RGB in 0..1, to (B, 3, scale*H, scale*W); its weights are on `device` already.
            device: "cuda:0", ...
            dtype: of the network's input.
            scale: magnification.
            noise_multiple: where the network takes noise as well, what sides are rounded up to for its size, see `Session.run`; 0: it
                takes none.
            alone: no other GPU works in this process.
        """
        import torch

        self._network, self._alone = network, alone
        self.device, self._dtype, self._scale, self._noise_multiple = device, dtype, scale, noise_multiple
        Stream: Any = torch.cuda.Stream  # has no types
        with torch.cuda.device(device):
            self._copy_in, self._compute, self._copy_out = (Stream() for _ in range(3))
            self._slots = [Slot(self.device) for _ in range(self.ahead)]
            self._pool = torch.cuda.graph_pool_handle()
        self._graphs: OrderedDict[Key, _Graph | None] = OrderedDict()  # None: seen once
        self._records = True
        self._submitted = self._collected = 0
        self._bytes_per_pixel: float | None = None
        self.failed = False

    @property
    def name(self) -> str:
        """What the driver calls the GPU."""
        import torch

        return "cpu" if self.device == "cpu" else torch.cuda.get_device_name(self.device)

    def submit(self, pixels: Pixels, rows: slice, columns: slice, where: str, noise: Batch | None = None) -> None:
        """See `flashrib.runtime.sessions.protocol.TileWorker.submit`."""
        import torch

        slot = self._slots[self._submitted % self.ahead]
        with self._on_gpu(where):
            with torch.cuda.stream(self._copy_in):
                source = slot.load(pixels)
            with torch.cuda.stream(self._compute):
                self._compute.wait_event(slot.loaded)
                if self._noise_multiple:  # launching takes no share of the time of such a network, recorded or not
                    result, finite = self._pixels(source, where, noise)
                else:
                    result, finite = self._run(source, (pixels.shape, pixels.dtype.name), where, self._pixels)
                slot.keep(result[rows, columns], finite)
            with torch.cuda.stream(self._copy_out):
                self._copy_out.wait_event(slot.computed)
                slot.unload()
        slot.where = where
        self._submitted += 1

    def collect(self, target: Pixels) -> None:
        """See `flashrib.runtime.sessions.protocol.TileWorker.collect`."""
        slot = self._slots[self._collected % self.ahead]
        with self._on_gpu(slot.where):
            finite = slot.write(target)
        self._collected += 1
        if not finite:
            raise not_finite(slot.where)

    def abandon(self) -> None:
        """See `flashrib.runtime.sessions.protocol.TileWorker.abandon`."""
        import torch

        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError:  # the GPU failed for good; who comes next will be told so
            return
        self._submitted = self._collected = 0
        self._graphs.clear()
        with torch.cuda.device(self.device):
            self._slots = [Slot(self.device) for _ in range(self.ahead)]
            self._pool = torch.cuda.graph_pool_handle()
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Free the network and all memory."""
        self._network = _closed
        self.abandon()

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        """Run a batch (B, 3, H, W), float32 -> (B, 3, scale*H, scale*W), float32, and wait for it; see `Session.run`."""
        import torch

        shape = "x".join(str(side) for side in batch.shape)
        try:
            with self._on_gpu(f"a batch of {shape}"), torch.cuda.stream(self._compute):
                source = torch.from_numpy(batch).to(self.device).to(self._dtype)
                if self._noise_multiple:
                    output = self._call(source, noise)
                else:
                    output, _ = self._run(source, (batch.shape, "batch"), shape, self._batch)
                result: Batch = np.ascontiguousarray(output.float().cpu().numpy())
        except OutOfMemoryError:
            self.abandon()
            raise
        return result

    def bytes_per_pixel(self, side: int) -> float:
        """Return the memory that a run needs at its peak per input pixel, measured once on `side` x `side` pixels."""
        import torch

        if self._bytes_per_pixel is None:
            with self._on_gpu("a first tile, to measure the memory"):
                pixels = torch.zeros((side, side, 3), dtype=torch.uint8, device=self.device)
                for _ in range(2):  # the first run leaves behind what libraries keep, which is no matter of pixels
                    before = torch.cuda.memory_allocated(self.device)
                    torch.cuda.reset_peak_memory_stats(self.device)
                    self._pixels(pixels, "a first tile")
                    torch.cuda.synchronize(self.device)
                    peak = torch.cuda.max_memory_allocated(self.device)
            self._bytes_per_pixel = max(peak - before, 1) / (side * side)
        return self._bytes_per_pixel

    def free_memory(self) -> int:
        """Return the bytes that new tiles can use."""
        import torch

        free, _ = torch.cuda.mem_get_info(self.device)
        return free + torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)

    def _run(self, source: "torch.Tensor", key: Key, where: str, work: Work) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Put the work on a tile or a batch on the compute stream: as a graph if its shape was seen before and is not too large."""
        pixels = source.shape[0] * source.shape[1] if work == self._pixels else source.numel() // source.shape[1]
        if not self._records or pixels > self._most_recorded():
            return work(source, where)
        if key not in self._graphs:
            # The first run loads kernels and sets up libraries, which cannot be recorded.
            self._graphs[key] = None
            while len(self._graphs) > GRAPHS:
                self._graphs.popitem(last=False)
            return work(source, where)
        self._graphs.move_to_end(key)
        recorded = self._graphs[key] or self._record(source, where, work)
        if recorded is None:
            return work(source, where)
        self._graphs[key] = recorded
        recorded.source.copy_(source)
        recorded.graph.replay()
        return recorded.result, recorded.finite

    def _most_recorded(self) -> float:
        """Input pixels up to which a shape is recorded."""
        import torch

        if self._alone or self._bytes_per_pixel is None:
            return GRAPH_PIXELS
        total = torch.cuda.get_device_properties(self.device).total_memory
        return max(GRAPH_PIXELS, GRAPH_SHARE * total / self._bytes_per_pixel)

    def _record(self, source: "torch.Tensor", where: str, work: Work) -> _Graph | None:
        """Record the work for tiles or batches like `source`; None, and never again, where that fails."""
        import torch

        static = torch.empty_like(source)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads use other GPUs meanwhile.
            with torch.cuda.graph(graph, self._pool, self._compute, capture_error_mode="thread_local"):
                result, finite = work(static, where)
        except RuntimeError as error:  # the memory may be full, too: without graphs there is more
            self._records = False
            self._leave_recording()
            self._graphs.clear()
            self._pool = torch.cuda.graph_pool_handle()
            logging.getLogger("flashrib").warning(
                "flashrib: warning: CUDA graphs do not work with this network on %s (%s): kernels are launched one by one, which"
                " slows small tiles down",
                self.device,
                str(error).strip().splitlines()[0],
            )
            return None
        return _Graph(graph, static, result, finite)

    def _leave_recording(self) -> None:
        """Tell PyTorch's allocator that a recording is over that a network broke off by waiting for the GPU, for example.

        PyTorch 2.11 and 2.13 say so themselves only where it ended well. In a recording the allocator gives nothing back, so the memory
        of earlier tiles would be lost for others, however short it is.
        """
        import torch

        device = torch.device(self.device).index or 0
        # Neither has a public name; a RuntimeError says "not currently recording": all is well.
        with contextlib.suppress(AttributeError, RuntimeError):
            torch._C._cuda_endAllocateToPool(device, self._pool)
            torch._C._cuda_releasePool(device, self._pool)

    def _pixels(
        self, source: "torch.Tensor", where: str, noise: Batch | None = None
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Tile as it is -> result as it will be, and whether it is finite."""
        batch = to_batch(source, self._dtype)
        result = self._call(batch, noise)
        expected = (1, 3, self._scale * source.shape[0], self._scale * source.shape[1])
        if tuple(result.shape) != expected:
            raise wrong_shape(tuple(result.shape), expected, self._scale, where)
        return to_pixels(result, source.dtype, gray=source.ndim == 2), result.isfinite().all()

    def _batch(self, source: "torch.Tensor", where: str) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Batch -> result, and whether it is finite."""
        result = self._call(source)
        return result, result.isfinite().all()

    def _call(self, batch: "torch.Tensor", noise: Batch | None = None) -> "torch.Tensor":
        inputs = [batch, self._noise(batch, noise)] if self._noise_multiple else [batch]
        with _LOCK, full_float32(self.device):
            return self._network(*inputs)

    def _noise(self, batch: "torch.Tensor", noise: Batch | None) -> "torch.Tensor":
        """The noise of a batch, zeros where none is given."""
        import torch

        if noise is not None:
            return torch.from_numpy(noise).to(self.device, self._dtype)
        height, width = (self._scale * padded(side, self._noise_multiple) for side in batch.shape[-2:])
        return batch.new_zeros(batch.shape[0], 3, height, width)

    @contextlib.contextmanager
    def _on_gpu(self, what: str) -> Iterator[None]:
        """Make this GPU the thread's current one, without gradients; errors become ours, in one line."""
        import torch

        try:
            with (
                one_line_errors(f"PyTorch failed on {what} on {self.device!r}"),
                torch.cuda.device(self.device),
                torch.inference_mode(),
            ):
                yield
        except OutOfMemoryError:
            raise
        except SessionError as error:
            if self._answers():
                raise
            self.failed = True
            stopping.broken.append(self.device)
            raise DeviceFailedError(str(error)) from error

    def _answers(self) -> bool:
        """Whether the GPU still works: after an error of its own every call fails."""
        import torch

        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError:
            return False
        return True


def _closed(batch: "torch.Tensor") -> "torch.Tensor":
    raise SessionError("the PyTorch session is closed: make a new one")
