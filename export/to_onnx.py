"""Trained network -> ONNX model: fold, trace, precision, passes, the body of attention, metadata."""

from importlib.metadata import version

import onnx
import onnx.inliner
from onnx import ModelProto

from flashrib.export.describe import describe_network
from flashrib.export.operators.bodies import body_of_operators, default_bodies, with_body
from flashrib.export.operators.operator import DOMAIN
from flashrib.export.options import ExportOptions
from flashrib.export.passes import run_passes
from flashrib.export.passes.plain_sizes import plain_sizes
from flashrib.export.precision import with_precision
from flashrib.export.save import hash_of_initializers, save_onnx
from flashrib.export.trace import trace
from flashrib.model.fold import fold
from flashrib.model.network import Network
from flashrib.runtime.errors import ModelError, UsageError

__all__ = ["onnx_from_network", "save_onnx"]


def onnx_from_network(
    network: Network,
    *,
    source_sha256: str = "",
    options: ExportOptions | None = None,
) -> ModelProto:
    """Fold a network and export it.

    Inputs are those of `network.config.inputs()`; for images `input` (B, 3, H, W), RGB, 0..1, H and W at least `config.minimum`. The
    output is `output`, for upscalers (B, 3, rH, rW).

    Args:
        network: of any architecture, in training form; stays as it is.
        source_sha256: hash of the checkpoint, for the metadata.
        options: None: float32, batch 1, dynamic height and width, not clamped.

    Raises:
        ModelError: the exported graph is not valid ONNX, or a weight does not fit the precision.
        UsageError: an operator without such a body, a tile smaller than the network's minimum, or noise for a network without any.
    """
    return export_graph(network, options or ExportOptions(), source_sha256)[0]


def export_graph(
    network: Network, options: ExportOptions, source_sha256: str = ""
) -> tuple[ModelProto, dict[str, int]]:
    """As `onnx_from_network`, and the size of the graph along the way.

    Returns:
        The model, and `nodes_traced`, `bytes_traced` (as torch's exporter writes it, in float32), `nodes` and `bytes`.
    """
    network = network.with_noise(options.noise)
    config = network.config
    if options.tile is not None:
        height, width = options.tile
        if not any({"height", "width"} <= set(tensor.shape) for tensor in config.inputs()):
            raise UsageError(
                f"tile {height}x{width}: {config.name} takes one size only, which is its own: leave --tile out"
            )
        if min(options.tile) < config.minimum:
            raise UsageError(f"tile {height}x{width}: {config.name} needs at least {config.minimum} pixels per side")
        sides = config.open_sizes(height, width)
        if (sides["height"], sides["width"]) != (height, width):
            raise UsageError(f"tile {height}x{width}: {config.name} takes multiples of {config.alignment} only")
    if options.clamp and config.task == "classify":
        raise UsageError(f"--clamp is for images, but {config.name} gives scores: leave it out")
    traced = trace(
        fold(network), opset=options.chosen_opset, batch=options.batch, tile=options.tile, clamp=options.clamp
    )
    sizes = {"nodes_traced": len(traced.graph.node), "bytes_traced": traced.ByteSize()}
    model = with_precision(traced, options.precision, options.io)
    run_passes(model)
    plain_sizes(model, config.scale if config.task != "classify" else 1)
    usual = "standard" if options.inline else default_bodies(model, options.precision)
    bodies = body_of_operators(model, options.attention or usual)
    model = with_body(model, bodies)
    if options.inline:
        model = _inlined(model)
    fixed = {"fixed_size": options.tile} if options.tile and config.task == "upscale" else {}
    metadata = describe_network(
        network,
        **fixed,
        precision=options.precision,
        attention=", ".join(dict.fromkeys(bodies.values())),
        source_sha256=source_sha256,
        io=options.io,
        batch=options.batch,
        opset=next(o.version for o in model.opset_import if o.domain == ""),
        clamp=options.clamp,
        weights_sha256=hash_of_initializers(model),
    )
    onnx.helper.set_model_props(model, metadata.to_properties())
    model.producer_name, model.producer_version = "flashrib", version("flashrib")
    try:
        onnx.checker.check_model(model, full_check=False)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the exported graph of {config.name} is not valid ONNX: {error}") from error
    return model, sizes | {"nodes": len(model.graph.node), "bytes": model.ByteSize()}


def _inlined(model: ModelProto) -> ModelProto:
    """Return the model with the bodies of functions in their nodes' places, and without the opset of the domain that is gone."""
    model = onnx.inliner.inline_local_functions(model)
    kept = [opset for opset in model.opset_import if opset.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model
