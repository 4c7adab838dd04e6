"""Offset attention in ONNX Runtime's library: launches, code for every target, and the file that has it."""

from pathlib import Path

import onnx
import pytest
import torch

from flashrib.export.onnxruntime import build as builder
from flashrib.export.onnxruntime.compile import compile_launch
from flashrib.export.onnxruntime.graph import with_library
from flashrib.export.onnxruntime.launch import Node, Tensor
from flashrib.export.onnxruntime.options import TARGETS, LibraryOptions
from flashrib.export.operators.offset.onnxruntime import KERNEL
from flashrib.export.options import ExportOptions
from flashrib.export.to_file import export_file
from flashrib.model.attention.fibonacci import op
from flashrib.model.checkpoint import load_model
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from tests.export.onnxruntime.recorder import Launched, Recorder, launched_by_library
from tests.export.operators.offset.test_bodies import MASKED, model_of
from tests.test_digits import TRAINED


def layer(tokens: int, mode: str, dtype: str = "fp16") -> Node:
    inputs = {"qkv": Tensor(dtype, (None, tokens, 3 * 3 * 64)), "offsets": Tensor("int32", (3, 5))}
    return Node("OffsetAttention", inputs, {"num_heads": 3, "mask_mode": MASKED.index(mode)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("mode", MASKED)
@pytest.mark.parametrize("tokens", [17, 197, 9000])
def test_launches_are_those_of_pytorch(
    tokens: int, mode: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads of one program, of several, and with the class token's row in launches of its own."""
    wanted: list[Launched] = []
    monkeypatch.setattr(op, "with_warps", lambda kernel, warps: kernel)
    monkeypatch.setattr(op, "wrap_triton", lambda kernel: Recorder(kernel, wanted))
    qkv, offsets = torch.zeros(2, tokens, 3 * 3 * 64, dtype=dtype), torch.zeros(3, 5, dtype=torch.int32)
    op._offset_attention.__wrapped__(qkv, offsets, 3, mode == "zero_logit")
    node = layer(tokens, mode, "fp16" if dtype == torch.float16 else "fp32")
    launches = KERNEL.launches(node, 90)
    assert [launched_by_library(launch, [tuple(qkv.shape), (3, 5)]) for launch in launches] == wanted
    assert len(launches) == {17: 1, 197: 3 if mode == "zero_logit" else 2, 9000: 3}[tokens]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_compiles(target: str) -> None:
    capability = int(target[2:])
    node = layer(197, "zero_logit")
    for launch in KERNEL.launches(node, capability):
        made = compile_launch(node, launch, capability)
        assert made.code.startswith(b"\x7fELF")
        assert bool(made.ptx) == (capability < 90)
        assert made.shared <= 48 << 10


@pytest.mark.parametrize("mode", MASKED)
def test_memory_between_launches_is_an_output_that_nothing_reads(mode: str) -> None:
    """The file is valid, and runs by its body where there is no library."""
    qkv, offsets = torch.randn(1, 197, 3 * 2 * 4), torch.tensor([[1, 3], [2, 196]], dtype=torch.int32)
    plain = model_of(qkv, offsets, 2, mode, "standard")
    model, (operator,) = with_library(plain, [80])
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    outputs = operator.kernel.launches(operator.node, 80)[0].outputs
    assert len(node.output) == len(outputs) == (4 if mode == "zero_logit" else 2)
    assert [output.dtype for output in outputs[1:]] == ["fp32"] * (len(outputs) - 1)


def test_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "build_library", lambda table, images, output: output.write_text(table))
    network = load_model(TRAINED)
    plain, output = tmp_path / "digits.onnx", tmp_path / "fast.onnx"
    export_file(network, plain, ExportOptions())
    manifest = builder.build_with_library(plain, output, LibraryOptions(("sm80",)))
    assert (manifest.operators, manifest.passes, manifest.model.task) == (1, False, "classify")
    assert output.with_name("fast.so").read_text().startswith("op OffsetAttention_")
    pictures = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with OnnxRuntimeSession(output) as session, OnnxRuntimeSession(plain) as reference, torch.inference_mode():
        found = torch.from_numpy(session.run(pictures.numpy()))
        assert torch.equal(found, torch.from_numpy(reference.run(pictures.numpy())))
        assert (found - network(pictures)).abs().max() < 1e-4
