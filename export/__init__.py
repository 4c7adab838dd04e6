"""Networks as ONNX files, engines and packages.

    from flashrib.export import ExportOptions, export_file
    from flashrib.model import load_model

    export_file(load_model("4x_SSTplus.pth", arch="sst-plus"), "4x_SSTplus_fp16.onnx", ExportOptions(precision="fp16"))

The names below are loaded when they are first used.
"""

from typing import TYPE_CHECKING

from flashrib.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from flashrib.export.check import check_file
    from flashrib.export.engine.build import build_engine
    from flashrib.export.engine.engine_from_onnx import engine_from_onnx
    from flashrib.export.engine.options import EngineOptions
    from flashrib.export.operators.bodies import with_body
    from flashrib.export.operators.operator import Operator
    from flashrib.export.operators.table import OPERATORS
    from flashrib.export.options import ExportOptions
    from flashrib.export.package.build import build_package
    from flashrib.export.package.options import PackageOptions
    from flashrib.export.save import save_onnx
    from flashrib.export.to_file import export_file
    from flashrib.export.to_onnx import onnx_from_network

__all__ = [
    "OPERATORS",
    "EngineOptions",
    "ExportOptions",
    "Operator",
    "PackageOptions",
    "build_engine",
    "build_package",
    "check_file",
    "engine_from_onnx",
    "export_file",
    "onnx_from_network",
    "save_onnx",
    "with_body",
]

_HOMES = {
    "OPERATORS": "operators.table",
    "EngineOptions": "engine.options",
    "ExportOptions": "options",
    "Operator": "operators.operator",
    "PackageOptions": "package.options",
    "build_engine": "engine.build",
    "build_package": "package.build",
    "check_file": "check",
    "engine_from_onnx": "engine.engine_from_onnx",
    "export_file": "to_file",
    "onnx_from_network": "to_onnx",
    "save_onnx": "save",
    "with_body": "operators.bodies",
}


__getattr__, __dir__ = lazy_names(globals(), _HOMES)
