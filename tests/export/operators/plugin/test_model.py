"""The model with the plugin in place of a body, and what is refused before anything is compiled."""

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import onnx
import pytest

from flashrib.export.engine.build import cache_key
from flashrib.export.engine.engine_from_onnx import engine_from_onnx
from flashrib.export.engine.options import EngineOptions
from flashrib.export.operators.bodies import operator_nodes
from flashrib.export.operators.operator import Operator
from flashrib.export.operators.plugin import model as module
from flashrib.export.operators.plugin.model import capability_of, fingerprint, register, source_files, with_plugin
from flashrib.export.operators.table import OPERATORS
from flashrib.export.operators.window.row import WINDOW_ATTENTION
from flashrib.runtime.cli import main
from flashrib.runtime.errors import MissingPackageError, SessionError, UsageError
from tests.export.engine.sources import TILE, needs_rtx, small_model, small_source


def tensorrt(version: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(__version__=version)


@pytest.mark.parametrize(("targets", "capability"), [(("sm87",), 87), (("sm120",), 120), (("ampere+",), 80)])
def test_the_node_becomes_the_plugin(
    targets: tuple[str, ...], capability: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "register", lambda trt, rows: None)
    source = small_model()
    model = with_plugin(source, tensorrt("11.4.0"), targets)
    assert [function.name for function in model.functions] == ["PositionCodes"]
    for node, before in zip(operator_nodes(model), operator_nodes(source), strict=True):
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert values["capability"] == capability
        assert (values["plugin_namespace"], values["plugin_version"]) == (b"flashrib", b"1")
        assert list(node.attribute)[: len(before.attribute)] == list(before.attribute)
        assert (node.op_type, node.domain, list(node.input)) == (before.op_type, "flashrib", list(before.input))
    assert "WindowAttention" in [function.name for function in source.functions]


@pytest.mark.parametrize("version", ["10.9.0.34", "10.13.3.9", "10.15.1", "11.4.0.106"])
def test_versions_that_have_such_plugins(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(module.importlib, "import_module", loaded.append)
    register(tensorrt(version), [WINDOW_ATTENTION])
    assert loaded == ["triton", "flashrib.export.operators.window.plugin.registration"]


@pytest.mark.parametrize("version", ["10.3.0", "10.8.0.43", "10.14.0", "10.14.1.48"])
def test_versions_that_have_not(version: str) -> None:
    with pytest.raises(
        SessionError, match=rf"TensorRT {version} cannot .*install 10.9 to 10.13, .* --attention native"
    ):
        register(tensorrt(version), [WINDOW_ATTENTION])


def test_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(MissingPackageError, match=r"triton.*flashrib\[gpu\]"):
        register(tensorrt("11.4.0"), [WINDOW_ATTENTION])


def test_tensorrt_without_its_plugin_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt("11.4.0"))
    monkeypatch.delitem(sys.modules, "flashrib.export.operators.window.plugin.registration", raising=False)
    with pytest.raises(SessionError, match=r"TensorRT 11.4.0 is installed without its Python module tensorrt.plugin"):
        register(tensorrt("11.4.0"), [WINDOW_ATTENTION])


def test_no_gpu() -> None:
    with pytest.raises(SessionError, match=r"no GPU on this machine, .* --target ampere"):
        capability_of(())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"flavour": "rtx", "attention": "plugin"}, "TensorRT-RTX takes no such plugins; use --flavour tensorrt"),
        ({"flavour": "tensorrt", "attention": "flash"}, "'flash' is not one of native, plugin"),
        ({"flavour": "tensorrt", "attention": "plugin", "version_compatible": True}, "not with --attention plugin"),
    ],
    ids=["rtx", "unknown", "version-compatible"],
)
def test_options_that_contradict_each_other(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        EngineOptions(**options)


def test_an_operator_without_a_plugin() -> None:
    row = Operator("Toy", (), {})
    with pytest.raises(UsageError, match="flashrib::Toy has no plugin; use --attention native"):
        register(tensorrt("11.4.0"), [WINDOW_ATTENTION, row])


def test_fingerprint_knows_kernel_and_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {fingerprint([WINDOW_ATTENTION]), fingerprint([])}
    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: "9.9")
    found.add(fingerprint([WINDOW_ATTENTION]))
    (tmp_path / "kernel.py").write_text("another")
    files = source_files
    monkeypatch.setattr(module, "source_files", lambda name: [*files(name), tmp_path / "kernel.py"])
    found.add(fingerprint([WINDOW_ATTENTION]))
    assert len(found) == 4


@pytest.mark.parametrize("row", [row for row in OPERATORS.values() if row.plugin], ids=lambda row: row.op_type)
def test_files_that_a_plugin_is_made_of_are_found(row: Operator) -> None:
    assert row.plugin is not None
    files = [path for name in row.plugin.sources for path in source_files(name)]
    assert len(set(files)) == len(files)
    assert all(path.is_file() for path in files)
    (registration,) = [path for path in files if path.name == "registration.py"]
    assert registration.as_posix().endswith(row.plugin.registration.replace(".", "/").removeprefix("flashrib/") + ".py")
    assert {"kernel.py", "ptx.py"} <= {path.name for path in files}


def test_sources_that_are_not_there() -> None:
    with pytest.raises(AssertionError, match=r"no module flashrib\.export\.nothing"):
        source_files("flashrib.export.nothing")


@needs_rtx
def test_what_the_builder_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the parser of TensorRT-RTX, which stands in for TensorRT's: it finds no plugin, but then it looked for one."""
    flags: list[int] = []

    class Builder:
        def __init__(self, logger: object) -> None:
            self.real = bindings["Builder"](logger)

        def create_network(self, asked: int) -> Any:
            flags.append(asked)
            return self.real.create_network(1 << int(bindings["NetworkDefinitionCreationFlag"].STRONGLY_TYPED))

    bindings = vars(importlib.import_module("tensorrt_rtx_bindings"))
    kinds = types.SimpleNamespace(STRONGLY_TYPED=1, PREFER_AOT_PYTHON_PLUGINS=3)
    changed = {"__version__": "11.4.0", "Builder": Builder, "NetworkDefinitionCreationFlag": kinds}
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(**bindings | changed))
    monkeypatch.setattr(module, "register", lambda trt, rows: None)
    source = small_source(tmp_path)
    options = EngineOptions("tensorrt", ("ampere+",), usual=TILE, attention="plugin")
    with pytest.raises(Exception, match="WindowAttention") as raised:
        engine_from_onnx(source, options)
    assert "Plugin not found" in str(raised.value)
    assert flags == [0b1010]
    assert cache_key(source, options) != cache_key(source, EngineOptions("tensorrt", ("ampere+",), usual=TILE))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["build", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "m.engine"), "--attention", "plugin"]
    assert main([*arguments, "--flavour", "rtx"]) == 2
    assert "--attention: --flavour rtx has no such option, it belongs to tensorrt" in capsys.readouterr().err
