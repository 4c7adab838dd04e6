"""What is said where a provider is not there; how a session's placement is checked."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from flashrib.runtime.errors import SessionError
from flashrib.runtime.sessions import providers
from flashrib.runtime.sessions.providers import PROVIDERS, check_placement, require_provider


@pytest.fixture
def only_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(providers, "load_onnxruntime", lambda: module)


@pytest.mark.parametrize(
    ("name", "installed", "said"),
    [
        ("cuda", ["onnxruntime"], "installed is onnxruntime, which has no such provider: pip uninstall -y onnxruntime"),
        (
            "cuda",
            ["onnxruntime", "onnxruntime-gpu"],
            "onnxruntime and onnxruntime-gpu are both installed and overwrite",
        ),
        ("openvino", [], "then pip install onnxruntime-openvino"),
        ("tensorrt-rtx", ["onnxruntime"], "needs the package onnxruntime-ep-nv-tensorrt-rtx: pip install"),
    ],
)
def test_what_to_install(
    name: str, installed: list[str], said: str, only_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "installed_packages", lambda: installed)
    row = PROVIDERS[name]
    if row.plugin is not None:
        row = dataclasses.replace(row, plugin="no_such_plugin")
    with pytest.raises(SessionError, match=said):
        require_provider(row)
    require_provider(PROVIDERS["cpu"])


def session(running: list[str], placed: dict[str, list[str]]) -> Any:
    """A session with providers `running`, whose nodes are of these types, by provider."""
    parts = [
        SimpleNamespace(
            ep_name=name,
            get_nodes=lambda types=types: [SimpleNamespace(name=f"node_{t}", op_type=t) for t in types],
        )
        for name, types in placed.items()
    ]
    return SimpleNamespace(get_providers=lambda: running, get_provider_graph_assignment_info=lambda: parts)


def test_a_node_on_the_cpu_is_named() -> None:
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    check_placement(session([cuda, cpu], {cuda: ["Conv"], cpu: ["Shape", "Gather"]}), PROVIDERS["cuda"], "m.onnx")
    with pytest.raises(SessionError, match=r"m\.onnx: the provider cuda has no kernel for the node node_Conv \(Conv\)"):
        check_placement(session([cuda, cpu], {cuda: ["MatMul"], cpu: ["Shape", "Conv"]}), PROVIDERS["cuda"], "m.onnx")


def test_a_provider_that_did_not_start() -> None:
    with pytest.raises(SessionError, match=r"m\.onnx: the provider openvino did not start"):
        check_placement(session(["CPUExecutionProvider"], {}), PROVIDERS["openvino"], "m.onnx")
