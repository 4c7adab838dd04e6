"""CLEAR's attention in ONNX Runtime's library: nodes, launches, code for every target, and the file that has it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from flashrib.export.onnxruntime import build as builder
from flashrib.export.onnxruntime.compile import arguments_of, compile_launch
from flashrib.export.onnxruntime.graph import with_library
from flashrib.export.onnxruntime.options import TARGETS, LibraryOptions
from flashrib.export.options import ExportOptions
from flashrib.export.save import save_onnx
from flashrib.export.to_file import export_file
from flashrib.export.to_onnx import onnx_from_network
from flashrib.model.attention.disc import kernel, op
from flashrib.model.attention.disc.blocks import block_lists
from flashrib.model.attention.disc.tuning import blocks_for
from flashrib.runtime.cli import main
from tests.export.onnxruntime.recorder import Launched, Recorder, launched_by_library
from tests.export.operators.disc.test_bodies import run
from tests.model.architectures.clear_dit.cases import inputs, network, tiny

CONFIG = tiny(3, 4)
GRID = (8, 12)


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return onnx_from_network(network(CONFIG), options=ExportOptions("fp16", tile=GRID))


def test_each_target_has_the_lists_of_its_blocks(exported: onnx.ModelProto) -> None:
    """sm80 and sm86 cut the picture alike, sm90 otherwise; all layers share the lists."""
    model, (operator,) = with_library(exported, [80, 86, 90])
    onnx.checker.check_model(model, full_check=True)
    nodes = [node for node in model.graph.node if node.op_type == operator.name]
    assert len(nodes) == 3
    assert len({tuple(node.input[3:]) for node in nodes}) == 1
    made = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for capability in (80, 86, 90):
        (launch,) = operator.kernel.launches(operator.node, capability)
        places = arguments_of(operator.node, launch)
        blocks = blocks_for(capability, 16, 3)
        wanted = block_lists(GRID, 3, blocks.tile, blocks.keys)
        for name in ("starts", "full", "blocks"):
            given = nodes[0].input[int(places[name][1:])]
            np.testing.assert_array_equal(made[given], getattr(wanted, name))


def test_launches_are_those_of_pytorch(exported: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[Launched] = []
    monkeypatch.setattr(kernel, "disc_attention_kernel", Recorder(kernel.disc_attention_kernel, wanted))
    q, k = (torch.zeros(2, 101 + extra, 2, 16, dtype=torch.float16) for extra in (0, 6))
    _, (operator,) = with_library(exported, [90])
    op.launch(q, k, k, GRID, 5, 3, operator.node.attributes["scale"], 6)
    (launch,) = operator.kernel.launches(operator.node, 90)
    assert [launched_by_library(launch, [tuple(q.shape)])] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_compiles(exported: onnx.ModelProto, target: str) -> None:
    capability = int(target[2:])
    _, (operator,) = with_library(exported, [capability])
    (launch,) = operator.kernel.launches(operator.node, capability)
    made = compile_launch(operator.node, launch, capability)
    assert made.code.startswith(b"\x7fELF")
    assert bool(made.ptx) == (capability < 90)


def test_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights beside the file, as of a whole FLUX: the new file has them beside it under its own name."""
    monkeypatch.setattr(builder, "build_library", lambda table, images, output: output.write_text(table))
    plain, folder = tmp_path / "step.onnx", tmp_path / "built"
    folder.mkdir()
    export_file(network(CONFIG), plain, ExportOptions(tile=GRID))
    save_onnx(onnx.load(plain), plain, external_above=0)
    assert plain.with_name("step.onnx.data").is_file()
    manifest = builder.build_with_library(plain, folder / "fast.onnx", LibraryOptions(("sm80", "sm90")))
    assert (manifest.operators, manifest.model.task) == (1, "denoise")
    table = (folder / "fast.so").read_text()
    assert table.startswith("op DiscAttention_")
    assert table.count("image ") == 3
    given = inputs(CONFIG, *GRID)
    with torch.inference_mode():
        exact = network(CONFIG)(*given).numpy()
    found, wanted = run(str(folder / "fast.onnx"), given)[0], run(str(plain), given)[0]
    np.testing.assert_array_equal(found, wanted)
    assert np.abs(found - exact).max() < 1e-4
    assert {path.name for path in folder.iterdir()} == {"fast.onnx", "fast.onnx.data", "fast.onnx.json", "fast.so"}
    assert {path.name for path in tmp_path.iterdir()} == {"step.onnx", "step.onnx.data", "built"}


def test_a_file_of_any_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_file(network(CONFIG), tmp_path / "open.onnx", ExportOptions())
    command = ["build", str(tmp_path / "open.onnx"), "-o", str(tmp_path / "fast.onnx"), "--flavour", "onnxruntime"]
    assert main([*command, "--target", "sm80"]) == 2
    error = capsys.readouterr().err
    assert "a library of this model is for one size of picture: export it with --tile HxW" in error
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"open.onnx"}
