"""Checkpoint -> checked ONNX file."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from flashrib.export.check import CheckResult, check_file
from flashrib.export.options import ExportOptions
from flashrib.export.save import save_onnx
from flashrib.export.to_onnx import export_graph
from flashrib.model.network import Network


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Attributes:
        sizes: `nodes_traced`, `bytes_traced`, `nodes` and `bytes`: the graph as torch's exporter wrote it, and the file.
        checks: see `flashrib.export.check.check_file`.
        seconds: from the network to the checked file.
    """

    sizes: dict[str, int]
    checks: list[CheckResult]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        return {**self.sizes, "checks": [dataclasses.asdict(c) for c in self.checks], "seconds": round(self.seconds, 1)}


def export_file(
    network: Network, path: str | Path, options: ExportOptions | None = None, source_sha256: str = ""
) -> ExportReport:
    """Export a network; the file appears once it has passed its checks, and an older one stays where it does not.

    Raises:
        UsageError, ModelError: see `onnx_from_network`.
        ModelError, SessionError: see `check_file`.
        FlashribError: the file cannot be written.
    """
    options = options or ExportOptions()
    start = time.perf_counter()
    network = network.with_noise(options.noise)
    model, sizes = export_graph(network, options, source_sha256)
    checks: list[CheckResult] = []
    save_onnx(model, path, check=lambda staged: checks.extend(check_file(staged, network, options.clamp)))
    return ExportReport(sizes, checks, time.perf_counter() - start)
