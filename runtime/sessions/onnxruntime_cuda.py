"""ONNX Runtime's CUDA provider in depth: device buffers, a CUDA graph for each size, tiles that overlap with the work of the CPU.

While the GPU computes a tile, the one before is converted and written and the one after is cut and converted: runs are handed to a thread
of the session's own. A file with a library of custom operators gets it, once the library is proven to be what its manifest says.
"""

import contextlib
import logging
import mmap
import os
import re
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.library import check_targets, has_library, proven_library, read_library_manifest
from flashrib.runtime.artifacts.onnx_file import describe_onnx, external_files, openable
from flashrib.runtime.artifacts.onnx_loops import check_loops
from flashrib.runtime.artifacts.onnx_weights import check_weights
from flashrib.runtime.errors import ModelError, OutOfMemoryError, SessionError, UsageError
from flashrib.runtime.nvidia.cuda import find_gpu
from flashrib.runtime.sessions.base import SessionBase, given_to, noise_or_zeros
from flashrib.runtime.sessions.batches import run_in_batches
from flashrib.runtime.sessions.onnx_ends import described_by_graph
from flashrib.runtime.sessions.pixels import to_batch, to_pixels
from flashrib.runtime.sessions.protocol import Batch, Pixels, TileWorker, not_finite, wrong_shape
from flashrib.runtime.sessions.providers import (
    PROVIDERS,
    add_provider,
    check_placement,
    load_onnxruntime,
    require_provider,
)

SIZES = 8
"""Sizes whose buffers and graphs are kept, the latest ones."""

_LOG_FATAL_ONLY = 4
_DEVICE = "cuda"  # of buffers
_NO_KERNEL = re.compile(r"(?:Could not find an implementation for|Provider type for) (\w+)")
_COMPLETED = b"completed_v"  # see `flashrib.export.operators.window.bodies.attention_onnxruntime`
_NO_GRAPH = "-1"  # the id of runs that are not recorded
_INPUTS = ("input", "noise")  # in their order

_Shapes = tuple[tuple[int, ...], ...]  # of the inputs

# What ONNX Runtime says when the GPU's memory is full.
_FULL = (
    "Failed to allocate memory",
    "out of memory",
    "OUT_OF_MEMORY",
    "bad_alloc",
    "ALLOC_FAILED",
    "is smaller than requested",  # of its arena, where gpu_mem_limit bounds it
)


def reason_against(path: str | os.PathLike[str], info: ModelInfo) -> str:
    """Say why a file without a library may not run on the CUDA provider; "" where nothing speaks against it."""
    odd = sorted({rank for rank in info.ranks if rank % 8})
    if info.attention != "onnxruntime" or not odd or _has_completed_heads(path):
        return ""
    return (
        "ONNX Runtime's own attention was seen to crash on GPUs with ranks that are no multiple of 8"
        f" ({', '.join(map(str, odd))}), and this file is from before heads were completed to one: export it again, build it with"
        " flashrib build --flavour onnxruntime, or use --device cpu"
    )


def _has_completed_heads(path: str | os.PathLike[str]) -> bool:
    """Whether the body of a file's attention completes its heads to multiples of 8 channels; functions stand at the end of a file."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.rfind(_COMPLETED) >= 0


class _Bound(NamedTuple):
    """A size that was run: its buffers on the GPU, one for each input, and what ONNX Runtime needs to run them again."""

    sources: tuple[Any, ...]
    result: Any
    binding: Any
    run_options: Any
    graph: int


class OnnxRuntimeCudaSession(SessionBase):
    """Runs a flashrib ONNX file on an NVIDIA GPU; follows `flashrib.runtime.sessions.protocol.Session`.

    Attributes:
        devices: the GPU, "cuda:0".
        library: True where the file's library of custom operators is in use.
        graphs: True where sizes that come again are launched as CUDA graphs.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: int = 0,
        options: Mapping[str, str] | None = None,
        *,
        damaged: bool = False,
        described: ModelInfo | None = None,
    ) -> None:
        """Load the ONNX file `path`.

        Args:
            path: of the ONNX file.
            device: number of the GPU.
            options: provider options that take the place of flashrib's own, such as {"gpu_mem_limit": "4000000000"}.
            damaged: see `SessionSpec`.
            described: what is known of the file; None: what it says itself.

        Raises:
            ModelError: no such file, no ONNX file of flashrib, or its library was changed after the build.
            SessionError: no GPU, no driver, onnxruntime without CUDA, a library for another GPU, or a node that has no kernel there.
        """
        described = described or describe_onnx(path)
        external_files(path)
        if not damaged:
            check_weights(path, described)
        check_loops(path)
        require_provider(PROVIDERS["cuda"])
        try:
            gpu = find_gpu()
        except SessionError as error:
            why = str(error).partition(",")[0]
            raise SessionError(f"{path}: the provider cuda needs an NVIDIA GPU, and {why}: use --device cpu") from error
        self._path = path
        self.devices = (f"cuda:{device}",)
        self._library: str | None = None
        passes = False
        if has_library(path):
            manifest = read_library_manifest(path)
            check_targets(path, manifest, gpu.name, gpu.capability)
            self._library, passes = str(proven_library(path, manifest)), manifest.passes
        self.library = self._library is not None
        if not self.library and (why := reason_against(path, described)):
            raise SessionError(f"{path}: {why}")
        self._options = {"device_id": str(device)}
        self._bf16 = described.precision == "bf16"
        if described.precision == "fp32":  # products of 10 bits would not keep its bound
            self._options["use_tf32"] = "0"
        if passes:  # its convolutions have widths that are multiples of 8 and feature maps with channels last
            self._options["prefer_nhwc"] = "0" if self._bf16 else "1"  # its convolutions of that layout take no bf16
            # At 540x960 on an H100: 36.7 ms and 0.61 GiB, with the largest workspaces 36.9 and 0.78 (sst-light).
            self._options["cudnn_conv_use_max_workspace"] = "0"
        self._options |= options or {}
        # Arithmetic on sizes, which runs on the CPU, cannot be recorded; a file that has none says so by its size or its passes.
        # Networks that see the whole picture or take noise complete the picture to whole windows, whose size they compute.
        pads = described.whole_picture or described.noise > 0
        self.graphs = described.fixed_size is not None or (passes and not pads)
        # A buffer that is kept for the next map of its size is no memory for others, and ESC's maps have many sizes: at 540x960 its arena
        # grows to 1300 MiB with that and to 963 without (sst-light: 533 and 580), by calculation, see benchmarks/onnxruntime_memory.py.
        self._reuse = not (passes and described.whole_picture)
        self._session: Any = None
        self._bound: OrderedDict[_Shapes, _Bound] = OrderedDict()
        self._ids = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flashrib-cuda")
        self._worker = _Worker(self)
        self._open()
        self._together, self._dtype, self.info = described_by_graph(path, self._session, described)

    @property
    def workers(self) -> Sequence[TileWorker]:
        """The GPU."""
        return (self._worker,) if self._session is not None else ()

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        """Upscale `batch` (B, 3, H, W), RGB, nominally 0..1, float32 -> (B, 3, scale*H, scale*W) float32, not clamped.

        Args:
            batch: pictures.
            noise: see `Session.run`.

        Raises:
            OutOfMemoryError: the batch does not fit; a smaller one may.
            SessionError: the session is closed, or ONNX Runtime failed.
        """
        if self._session is None:
            raise SessionError("the ONNX Runtime session is closed: make a new one")
        if self._together is None:
            return self._compute(*given_to(self.info, batch, noise))
        return run_in_batches(self._compute, batch, self._together, noise_or_zeros(self.info, batch, noise))

    def close(self) -> None:
        """Free the model; calling it again does nothing."""
        self._thread.shutdown()
        self._bound.clear()
        self._session = None

    def later(self, batch: Batch, noise: Batch | None = None) -> "Future[Batch]":
        """Run a batch on the session's own thread; neither may change until the result is there."""
        return self._thread.submit(self.run, batch, noise)

    def free(self) -> None:
        """Give buffers, graphs and the arena's memory back, so that smaller tiles may fit."""
        self._bound.clear()
        self._session = None
        self._open()

    def _open(self) -> None:
        onnxruntime: Any = load_onnxruntime()
        cuda = PROVIDERS["cuda"]
        for graphs in (True, False) if self.graphs else (False,):
            options = onnxruntime.SessionOptions()
            options.log_severity_level = _LOG_FATAL_ONLY
            # Patterns reserve memory a second time for every size: 1.26 GB with, 0.60 without at 540x960 (sst-light, one H100).
            options.enable_mem_pattern = False
            options.enable_mem_reuse = self._reuse
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            chosen = dict(self._options)
            if graphs:
                chosen["enable_cuda_graph"] = "1"
            try:
                if self._library is not None:
                    options.register_custom_ops_library(self._library)
                providers = add_provider(options, cuda, chosen)
                session = onnxruntime.InferenceSession(os.fspath(openable(self._path)), options, providers=providers)
            except SessionError:
                raise
            except Exception as error:
                if graphs and "graph capture" in str(error):
                    continue  # some node runs on the CPU
                if self._bf16 and (missing := _NO_KERNEL.search(str(error))):
                    raise SessionError(
                        f"{self._path}: computes in bf16, for which ONNX Runtime's CUDA provider has no kernel of {missing[1]}:"
                        " export it with --precision fp16, or build it with flashrib build --flavour onnxruntime"
                    ) from error
                raise _translated(ModelError, f"{self._path}: ONNX Runtime cannot load this model", error) from error
            session.disable_fallback()
            check_placement(session, cuda, self._path)
            self._session, self.graphs = session, graphs
            return

    def _compute(self, *given: Batch) -> Batch:
        shape = "x".join(str(side) for side in given[0].shape)
        with _one_line(f"ONNX Runtime failed on a batch of {shape} on the GPU"):
            try:
                return self._launch(given)
            except Exception as error:
                if not (self.graphs and "capture" in str(error)):
                    raise
            # Not in the handler: the traceback keeps the session.
            self.graphs = False
            self.free()
            logging.getLogger("flashrib").warning(
                "flashrib: warning: %s cannot be recorded as a CUDA graph on %s: kernels are launched one by one, which slows small"
                " tiles down",
                self._path,
                *self.devices,
            )
            return self._launch(given)

    def _launch(self, given: Sequence[Batch]) -> Batch:
        bound = self._bind(tuple(batch.shape for batch in given))
        for source, batch in zip(bound.sources, given, strict=True):
            source.update_inplace(np.ascontiguousarray(batch, dtype=self._dtype))
        self._session.run_with_iobinding(bound.binding, bound.run_options)
        result: Batch = bound.result.numpy().astype(np.float32, copy=False)
        return result

    def _bind(self, shapes: _Shapes) -> _Bound:
        if shapes in self._bound:
            self._bound.move_to_end(shapes)
            return self._bound[shapes]
        onnxruntime: Any = load_onnxruntime()
        while len(self._bound) >= SIZES:
            _, oldest = self._bound.popitem(last=False)
            self._forget(oldest)
        device = int(self._options["device_id"])
        make, dtype = onnxruntime.OrtValue.ortvalue_from_shape_and_type, np.dtype(self._dtype).type
        sources = tuple(make(list(shape), dtype, _DEVICE, device) for shape in shapes)
        result = make(self._shape_of_result(shapes[0]), dtype, _DEVICE, device)
        binding = self._session.io_binding()
        for name, source in zip(_INPUTS, sources, strict=False):
            binding.bind_ortvalue_input(name, source)
        binding.bind_ortvalue_output("output", result)
        run_options = onnxruntime.RunOptions()
        self._ids += 1
        run_options.add_run_config_entry("gpu_graph_id", str(self._ids) if self.graphs else _NO_GRAPH)
        self._bound[shapes] = _Bound(sources, result, binding, run_options, self._ids)
        return self._bound[shapes]

    def _shape_of_result(self, shape: tuple[int, ...]) -> list[int]:
        if self.info.task == "classify":
            return [shape[0], self._session.get_outputs()[0].shape[1]]
        return [*shape[:2], self.info.scale * shape[2], self.info.scale * shape[3]]

    def _forget(self, bound: _Bound) -> None:
        if self.graphs and hasattr(self._session, "release_captured_graph"):
            with contextlib.suppress(Exception):  # it was never recorded
                self._session.release_captured_graph(bound.graph)


class _Worker:
    """The GPU as a worker: a tile is computed while the one before is written; follows `TileWorker`."""

    ahead = 2

    def __init__(self, session: OnnxRuntimeCudaSession) -> None:
        self._session = session
        self._waiting: deque[tuple[Future[Batch], slice, slice, tuple[int, ...], str]] = deque()

    def submit(self, pixels: Pixels, rows: slice, columns: slice, where: str, noise: Batch | None = None) -> None:
        """See `TileWorker.submit`."""
        height, width = pixels.shape[:2]
        scale = self._session.info.scale
        expected = (1, 3, height * scale, width * scale)
        self._waiting.append((self._session.later(to_batch(pixels), noise), rows, columns, expected, where))

    def collect(self, target: Pixels) -> None:
        """See `TileWorker.collect`."""
        future, rows, columns, expected, where = self._waiting.popleft()
        result = future.result()
        if result.shape != expected:
            raise wrong_shape(result.shape, expected, self._session.info.scale, where)
        if not (np.isfinite(result.min()) and np.isfinite(result.max())):
            raise not_finite(where)
        to_pixels(result[0, :, rows, columns], target)

    def abandon(self) -> None:
        """See `TileWorker.abandon`."""
        for future, *_ in self._waiting:
            with contextlib.suppress(Exception):
                future.result()
        self._waiting.clear()
        self._session.free()


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except (SessionError, UsageError):
        raise
    except Exception as error:
        raise _translated(SessionError, what, error) from error


def _translated(kind: type[ModelError] | type[SessionError], text: str, error: Exception) -> Exception:
    """Return OutOfMemoryError where `error` is a failed allocation, otherwise an error of the given kind, in one line."""
    reason = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(sign in reason for sign in _FULL):
        return OutOfMemoryError(f"{text}, for lack of memory: {reason}")
    return kind(f"{text}: {reason}")
