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
from flashrib.export.engine.options import EngineOptions
from flashrib.export.engine.progress import Progress, postponed_interrupt, progress_monitor
from flashrib.export.engine.quantized import EIGHT_BITS, check_quantized, quantized_nodes
from flashrib.export.engine.source import Source, fused_form, prepared_model
from flashrib.export.operators.window.plugin.model import with_plugin
from flashrib.runtime.artifacts.engine import EngineManifest
from flashrib.runtime.errors import ModelError, SessionError, UsageError
from flashrib.runtime.nvidia.flavours import FLAVOURS, collecting_logger, first_error, load_flavour

# ONNX's Attention is fused or not built at all; what TensorRT says in the second case.
_NO_KERNEL = "not supported by a dedicated kernel"


@dataclasses.dataclass(frozen=True)
class Engine:
    """An engine and what it says about itself."""

    plan: bytes
    manifest: EngineManifest


def engine_from_onnx(
    source: Source, options: EngineOptions, *, timing_cache: Path | None = None, progress: Progress | None = None
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
    flavour = FLAVOURS[options.flavour]
    trt = load_flavour(flavour, f"an engine of the flavour {flavour.name}")
    if flavour.name == "rtx" and source.metadata.precision == "int8":
        raise UsageError(
            f"{source.path}: is quantized to INT8, which TensorRT-RTX takes for weights alone: calibrate with --mode fp8, or build with"
            " --flavour tensorrt"
        )
    shapes = options.shapes(source.metadata, source.static)
    fixed = shapes[2] if shapes[0] == shapes[2] else None
    if timing_cache is not None and flavour.name == "rtx":
        raise UsageError("--timing-cache: TensorRT-RTX measures nothing when it builds, so it has none")
    targets = targets_of(options)
    model = prepared_model(source, fixed, fused_form(flavour, trt.__version__))
    if options.attention == "plugin":
        model = with_plugin(model, trt, targets)
    logger = collecting_logger(trt, "VERBOSE")
    product = f"{flavour.product} {trt.__version__}"

    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # what the bindings make of a null pointer
        raise SessionError(f"{flavour.product} cannot start its builder: {first_error(logger.messages)}") from error
    network, parser = _parsed(trt, builder, logger, model, source, product)
    config = configure(trt, builder, options, targets, None if fixed else shapes, source.batch)
    if timing_cache is not None:
        use_timing_cache(trt, config, timing_cache)
    started = time.perf_counter()
    with postponed_interrupt() as cancelled:
        config.progress_monitor = progress_monitor(trt, progress or (lambda *_: None), cancelled)
        plan = builder.build_serialized_network(network, config)
    del parser  # the network needed its memory
    if plan is None:
        reason = first_error(logger.messages)
        if _NO_KERNEL in reason:
            mend = "export it with other heads" if fixed else "build for one size: leave --min and --max out"
            raise ModelError(f"{source.path}: {product} has no fused attention for this model: {mend}")
        raise ModelError(f"{source.path}: {product} cannot build an engine: {reason}")
    seconds = time.perf_counter() - started
    content = bytes(plan)

    texts = [text for _, text in logger.messages]
    layers = engine_layers(texts) or inspect(trt, logger, content)
    scratch = max_scratch(texts)
    check_fused(
        str(source.path),
        source.layers,
        layers,
        scratch,
        scratch_by_layer(texts),
        size=shapes[2],
        dim=source.dim,
        batch=source.batch,
        dynamic=fixed is None,
    )
    if source.metadata.precision in EIGHT_BITS:
        check_quantized(str(source.path), source.metadata.precision, quantized_nodes(source.model), layers)
    assert scratch is not None
    if timing_cache is not None:
        save_timing_cache(config, timing_cache)
    return Engine(
        content,
        EngineManifest(
            flavour=flavour.name,
            version=trt.__version__,
            targets=targets,
            version_compatible=options.version_compatible,
            shapes=shapes,
            batch=source.batch,
            io=source.io,
            precision=source.metadata.precision,
            scratch_bytes=scratch,
            layers=len(layers),
            build_seconds=round(seconds, 1),
            onnx_sha256=source.sha256,
            engine_sha256=hashlib.sha256(content).hexdigest(),
            model=source.metadata,
        ),
    )


def _parsed(trt: Any, builder: Any, logger: Any, model: ModelProto, source: Source, product: str) -> tuple[Any, Any]:
    """Return the strongly typed network of a model, and the parser, whose memory the network refers to.

    Raises:
        ModelError: TensorRT's parser does not take it.
    """
    kinds = trt.NetworkDefinitionCreationFlag
    flags = 1 << int(kinds.STRONGLY_TYPED)
    if not any(function.name == "WindowAttention" for function in model.functions):  # it is the plugin
        flags |= 1 << int(kinds.PREFER_AOT_PYTHON_PLUGINS)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    # The path tells the parser where external data lies.
    if not parser.parse(model.SerializeToString(), str(source.path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        text = "; ".join(
            f"{e.node_operator() or 'graph'} {e.node_name()}: {' '.join(e.desc().split())}" for e in errors[:1]
        )
        raise ModelError(f"{source.path}: {product} cannot read this model: {text or first_error(logger.messages)}")
    return network, parser
