"""Builder configuration: targets, sizes, memory, compatibility, timing cache."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flashrib.export.engine.options import EngineOptions, Shapes
from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.artifacts.files import write_whole
from flashrib.runtime.errors import ModelError, SessionError, UsageError
from flashrib.runtime.nvidia.cuda import find_gpu


def targets_of(options: EngineOptions) -> tuple[str, ...]:
    """Return the targets with "current" replaced by the GPU of this machine; TensorRT without targets builds for that GPU.

    Raises:
        SessionError: the target is the GPU of this machine, and there is none (for TensorRT its builder says so).
    """
    if options.flavour == "rtx" and options.targets != ("current",):
        return options.targets
    if options.targets == ("ampere+",):
        return options.targets
    try:
        major, minor = find_gpu().capability
    except SessionError as error:
        if options.flavour == "rtx":
            raise SessionError(f"--target current: {error}; name the target instead, such as --target sm89") from error
        return ()
    return (f"sm{major}{minor}",)


def configure(
    trt: Any,
    builder: Any,
    options: EngineOptions,
    targets: tuple[str, ...],
    shapes: Shapes | None,
    inputs: Callable[[Side], Mapping[str, tuple[int, ...]]],
) -> Any:
    """Return the builder's configuration.

    Args:
        trt: module of the flavour.
        builder: TensorRT's builder.
        options: what is asked for.
        targets: as from `targets_of`.
        shapes: smallest, usual and largest size for a dynamic network, None for a static one.
        inputs: size (H, W) -> shapes of all inputs by name.

    Raises:
        UsageError: the installed version knows no such target.
        ModelError: TensorRT does not accept the sizes.
    """
    config = builder.create_builder_config()
    # The log then lists the layers with their shapes; it makes the engine larger by a ten-thousandth.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 20)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if targets == ("ampere+",):
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.flavour == "rtx" and targets:
        known = {name.lower(): value for name, value in trt.ComputeCapability.__members__.items()}
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            if target not in known:
                possible = ", ".join(sorted(name for name in known if name.startswith("sm")))
                raise UsageError(f"target {target!r}: TensorRT-RTX {trt.__version__} knows {possible}")
            config.set_compute_capability(known[target], index)
    if shapes is not None:
        profile = builder.create_optimization_profile()
        smallest, usual, largest = (inputs(size) for size in shapes)
        for name in smallest:
            profile.set_shape(name, smallest[name], usual[name], largest[name])
        if config.add_optimization_profile(profile) < 0:
            raise ModelError(f"TensorRT does not accept the sizes {shapes}")
    return config


def use_timing_cache(trt: Any, config: Any, path: Path) -> None:
    """Load a timing cache into a configuration, an empty one where there is no file yet.

    Raises:
        UsageError: the file is no timing cache of this version and GPU.
    """
    content = path.read_bytes() if path.exists() else b""
    if not config.set_timing_cache(config.create_timing_cache(content), ignore_mismatch=False):
        raise UsageError(
            f"{path}: is no timing cache of TensorRT {trt.__version__} for this GPU: delete it, or name another file"
        )


def save_timing_cache(config: Any, path: Path) -> None:
    """Write what the build measured."""
    write_whole(path, bytes(config.get_timing_cache().serialize()))
