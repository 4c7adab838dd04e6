"""ONNX Runtime on the CPU for whoever runs a graph itself: checks of exports, bisection, calibration.

`flashrib.runtime.sessions.onnxruntime` is the session that images are run with.
"""

import os
from typing import Any

# Everything that goes wrong is raised; at 3 (errors) ONNX Runtime would print the same on stderr as well.
LOG_FATAL_ONLY = 4


def open_onnx(model: str | os.PathLike[str] | bytes, threads: int | None = None, spinning: bool = True) -> Any:
    """Return an `onnxruntime.InferenceSession` on the CPU; what it raises is its own.

    Args:
        model: path of an ONNX file, or the bytes of one.
        threads: threads that compute one run; None: all cores.
        spinning: threads wait for work by spinning, which is faster for a long run and in the way of others in short ones.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_FATAL_ONLY
    options.intra_op_num_threads = threads or 0
    options.enable_mem_pattern = False  # patterns reserve memory again for every new shape
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = model if isinstance(model, bytes) else os.fspath(model)
    # Its fallback would try the same again, and print a banner on standard output.
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
