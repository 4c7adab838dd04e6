"""ONNX file -> engine, fused or refused."""

import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

from onnx import ModelProto

from flashrib.export.engine.configure import configure, save_timing_cache, targets_of, use_timing_cache
from flashrib.export.engine.fusion import check_fused
from flashrib.export.engine.log import engine_layers, inspect, max_scratch, scratch_by_layer
from flashrib.export.engine.options import EngineOptions, Shapes
from flashrib.export.engine.progress import postponed_interrupt, progress_monitor
from flashrib.export.engine.quantized import EIGHT_BITS, check_quantized, quantized_nodes
from flashrib.export.engine.source import Source, engine_bodies, prepared_model
from flashrib.export.operators.plugin.model import with_plugin
from flashrib.runtime.artifacts.engine import EngineManifest
from flashrib.runtime.errors import ModelError, SessionError, UsageError
from flashrib.runtime.nvidia.flavours import FLAVOURS, collecting_logger, first_error, load_flavour
from flashrib.runtime.progress import PhaseProgress

# ONNX's Attention is fused or not built at all; what TensorRT says in the second case.
_NO_KERNEL = "not supported by a dedicated kernel"


@dataclasses.dataclass(frozen=True)
class Engine:
    """An engine and what it says about itself."""

    plan: bytes
    manifest: EngineManifest


@dataclasses.dataclass(frozen=True)
class _Order:
    """What is to be built: the options, and all that follows from them, the model and the installed version of TensorRT."""

    source: Source
    options: EngineOptions
    trt: Any
    logger: Any
    targets: tuple[str, ...]
    shapes: Shapes
    model: ModelProto

    @property
    def dynamic(self) -> bool:
        return self.shapes[0] != self.shapes[2]

    @property
    def product(self) -> str:
        return f"{FLAVOURS[self.options.flavour].product} {self.trt.__version__}"

    @property
    def log(self) -> list[str]:
        return [text for _, text in self.logger.messages]


def engine_from_onnx(
    source: Source, options: EngineOptions, *, timing_cache: Path | None = None, progress: PhaseProgress | None = None
) -> Engine:
    """Build an engine. TensorRT-RTX does it on the CPU, TensorRT on the GPU that the engine is for.

    Args:
        source: as from `read_source`.
        options: what it is built for.
        timing_cache: file with the builder's measurements, read where it exists and written afterwards; makes the next build of a
            similar model on this GPU faster (tensorrt alone: TensorRT-RTX measures when it first runs).
        progress: called with the fraction done and the current phase.

    Raises:
        UsageError: sizes, targets or a timing cache that do not fit.
        ModelError: TensorRT cannot build it, or does not fuse the attention of every layer.
        MissingPackageError, SessionError: TensorRT is not installed, or cannot start.
    """
    order = _ordered(source, options, timing_cache is not None)
    started = time.perf_counter()
    plan, config = _built(order, timing_cache, progress or (lambda *_: None))
    seconds = time.perf_counter() - started
    layers, scratch = _proved(order, plan)
    if timing_cache is not None:
        save_timing_cache(config, timing_cache)
    return Engine(
        plan,
        EngineManifest(
            flavour=options.flavour,
            version=order.trt.__version__,
            targets=order.targets,
            version_compatible=options.version_compatible,
            shapes=order.shapes,
            batch=source.batch,
            io=source.io,
            precision=source.metadata.precision,
            scratch_bytes=scratch,
            layers=layers,
            build_seconds=round(seconds, 1),
            onnx_sha256=source.sha256,
            engine_sha256=hashlib.sha256(plan).hexdigest(),
            model=source.metadata,
        ),
    )


def _ordered(source: Source, options: EngineOptions, timed: bool) -> _Order:
    """Refuse what does not go together, and prepare the model for this version of TensorRT."""
    flavour = FLAVOURS[options.flavour]
    trt = load_flavour(flavour, f"an engine of the flavour {flavour.name}")
    if flavour.name == "rtx" and source.metadata.precision == "int8":
        raise UsageError(
            f"{source.path}: is quantized to INT8, which TensorRT-RTX takes for weights alone: calibrate with --mode fp8, or build with"
            " --flavour tensorrt"
        )
    shapes = options.shapes(source.metadata, source.static)
    if timed and flavour.name == "rtx":
        raise UsageError("--timing-cache: TensorRT-RTX measures nothing when it builds, so it has none")
    targets = targets_of(options)
    size = shapes[2] if shapes[0] == shapes[2] else None
    model = prepared_model(source, size, engine_bodies(source.model, flavour, trt.__version__))
    if options.attention == "plugin":
        model = with_plugin(model, trt, targets)
    return _Order(source, options, trt, collecting_logger(trt, "VERBOSE"), targets, shapes, model)


def _built(order: _Order, timing_cache: Path | None, progress: PhaseProgress) -> tuple[bytes, Any]:
    """Build; the engine, and the configuration with what the builder measured.

    Raises:
        SessionError: TensorRT cannot start its builder.
        ModelError: it cannot read the model, or cannot build it.
    """
    trt, logger, what = order.trt, order.logger, order.source.path
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # what the bindings make of a null pointer
        product = FLAVOURS[order.options.flavour].product
        raise SessionError(f"{product} cannot start its builder: {first_error(logger.messages)}") from error
    network, parser = _parsed(order, builder)
    shapes = order.shapes if order.dynamic else None
    config = configure(trt, builder, order.options, order.targets, shapes, order.source.shapes)
    if timing_cache is not None:
        use_timing_cache(trt, config, timing_cache)
    with postponed_interrupt() as cancelled:
        config.progress_monitor = progress_monitor(trt, progress, cancelled)
        plan = builder.build_serialized_network(network, config)
    del parser  # the network needed its memory
    if plan is None:
        reason = first_error(logger.messages)
        if _NO_KERNEL in reason:
            advice = "build for one size: leave --min and --max out" if order.dynamic else "export it with other heads"
            raise ModelError(f"{what}: {order.product} has no fused attention for this model: {advice}")
        raise ModelError(f"{what}: {order.product} cannot build an engine: {reason}")
    return bytes(plan), config


def _parsed(order: _Order, builder: Any) -> tuple[Any, Any]:
    """Return the strongly typed network of the model, and the parser, whose memory the network refers to.

    Raises:
        ModelError: TensorRT's parser does not take it.
    """
    trt, path = order.trt, order.source.path
    kinds = trt.NetworkDefinitionCreationFlag
    flags = 1 << int(kinds.STRONGLY_TYPED)
    if order.options.attention == "plugin":
        flags |= 1 << int(kinds.PREFER_AOT_PYTHON_PLUGINS)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, order.logger)
    # The path tells the parser where external data lies.
    if not parser.parse(order.model.SerializeToString(), str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        text = "; ".join(
            f"{e.node_operator() or 'graph'} {e.node_name()}: {' '.join(e.desc().split())}" for e in errors[:1]
        )
        raise ModelError(
            f"{path}: {order.product} cannot read this model: {text or first_error(order.logger.messages)}"
        )
    return network, parser


def _proved(order: _Order, plan: bytes) -> tuple[int, int]:
    """Refuse an engine that computes otherwise than asked for; the number of its layers, and its scratch memory in bytes.

    Raises:
        ModelError: attention that is not fused, or quantized layers that are computed in 16 bit.
    """
    source = order.source
    layers = engine_layers(order.log) or inspect(order.trt, order.logger, plan)
    scratch = max_scratch(order.log)
    largest = order.shapes[2]
    check_fused(source, layers, scratch, scratch_by_layer(order.log), size=largest, dynamic=order.dynamic)
    if source.metadata.precision in EIGHT_BITS:
        check_quantized(str(source.path), source.metadata.precision, quantized_nodes(source.model), layers)
    return len(layers), scratch or 0
