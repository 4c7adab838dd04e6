"""Files with a library of every operator, in plain ONNX Runtime on a GPU, compared with PyTorch in float32."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor

from flashrib.export.onnxruntime.build import build_with_library
from flashrib.export.onnxruntime.graph import with_library
from flashrib.export.onnxruntime.library import build_library, table_of
from flashrib.export.onnxruntime.options import LibraryOptions
from flashrib.export.operators.bodies import with_body
from flashrib.export.options import ExportOptions
from flashrib.export.to_file import export_file
from flashrib.model.attention.fibonacci import offset_attention
from flashrib.model.attention.fibonacci.offsets import head_offsets, pack_offsets
from flashrib.model.attention.window import window_attention
from flashrib.model.checkpoint import load_model, save_safetensors
from flashrib.model.network import Network
from flashrib.runtime.artifacts.library import LibraryManifest
from flashrib.runtime.errors import SessionError
from flashrib.runtime.nvidia.cuda import find_gpu
from flashrib.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession
from flashrib.runtime.sessions.providers import PROVIDERS, add_provider, load_onnxruntime
from tests.export.operators.offset.test_bodies import MASKED, model_of
from tests.export.operators.window.plugin.test_gpu import CASES
from tests.model.architectures.clear_dit.cases import inputs, network, tiny
from tests.model.networks import small_network
from tests.runtime.sessions.test_onnxruntime_cuda import needs_cuda
from tests.test_digits import TRAINED

pytestmark = [pytest.mark.gpu, needs_cuda]

KINDS = {"fp16": TensorProto.FLOAT16, "fp32": TensorProto.FLOAT}
BOUNDS = {"fp32": 2e-5, "fp16": 5e-3, "bf16": 2e-2}  # of the RMS of the error, relative


def open_on_gpu(model: str | bytes, library: Path, graph: bool = False) -> Any:
    onnxruntime: Any = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.register_custom_ops_library(str(library))
    chosen = {"use_tf32": "0"} | ({"enable_cuda_graph": "1"} if graph else {})
    return onnxruntime.InferenceSession(model, options, providers=add_provider(options, PROVIDERS["cuda"], chosen))


def run_poisoned(session: Any, given: dict[str, np.ndarray[Any, Any]], output: str, shape: tuple[int, ...]) -> Tensor:
    """Into a buffer of NaN, three times: a session with a graph records it, and launches it again."""
    onnxruntime: Any = load_onnxruntime()
    end = next(end for end in session.get_outputs() if end.name == output)
    dtype = np.float16 if end.type == "tensor(float16)" else np.float32
    binding = session.io_binding()
    for name, value in given.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
    poison = np.full(shape, np.nan, dtype)
    result = onnxruntime.OrtValue.ortvalue_from_numpy(poison, "cuda", 0)
    binding.bind_ortvalue_output(output, result)
    for _ in range(3):
        result.update_inplace(poison)
        session.run_with_iobinding(binding)
    return torch.from_numpy(result.numpy()).float()


def error_of(found: Tensor, wanted: Tensor) -> float:
    assert found.isfinite().all()
    return float((found.double() - wanted.double()).square().mean().sqrt() / wanted.double().square().mean().sqrt())


def build_operators(model: ModelProto, library: Path) -> bytes:
    major, minor = find_gpu().capability
    capability = 10 * major + minor
    changed, operators = with_library(model, [capability])
    build_library(*table_of(operators, [capability]), library)
    return changed.SerializeToString()


@pytest.mark.parametrize("graph", [False, True], ids=["", "graph"])
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("mode", MASKED)
@pytest.mark.parametrize(("patches", "heads", "size"), [(16, 3, 16), (196, 3, 64), (577, 2, 20), (8100, 2, 64)])
def test_offset_attention(
    patches: int, heads: int, size: int, mode: str, dtype: str, graph: bool, tmp_path: Path
) -> None:
    """Every way in which the class token's row is computed, heads that are no power of two."""
    offsets = pack_offsets(head_offsets(patches, heads, 1, "depth", "modified"), patches)
    qkv = torch.randn(2, patches + 1, 3 * heads * size, generator=torch.Generator().manual_seed(patches))
    qkv[..., : heads * size] *= size**-0.5
    given = qkv.half() if dtype == "fp16" else qkv
    wanted = offset_attention(given.float().cuda(), offsets.cuda(), heads, mode, form="gather").cpu()
    model = model_of(qkv, offsets, heads, mode, "standard", KINDS[dtype])
    session = open_on_gpu(build_operators(model, tmp_path / "o.so"), tmp_path / "o.so", graph)
    found = run_poisoned(session, {"qkv": given.numpy()}, "out", tuple(wanted.shape))
    assert error_of(found, wanted) <= BOUNDS[dtype]


@pytest.mark.parametrize("case", CASES)
def test_window_attention(case: str, tmp_path: Path) -> None:
    """Windows, heads and ranks of the presets, at sizes that are no multiples; shifted; batches."""
    layer, (batch, height, width) = CASES[case]
    random, channels = torch.Generator().manual_seed(height), layer.heads * layer.head_dim
    qkv = torch.randn(batch, height, width, 3 * channels, generator=random)
    qkv[..., :channels] *= layer.head_dim**-0.5
    codes = [torch.randn(layer.heads, layer.tokens, layer.rank, generator=random).half() for _ in range(2)]
    codes[0] *= layer.rank**-0.5
    how = {"window": list(layer.window), "num_heads": layer.heads, "shift": list(layer.shift)}
    graph = helper.make_graph(
        [helper.make_node("WindowAttention", ["qkv", "pos_q", "pos_k"], ["out"], domain="flashrib", **how)],
        "layer",
        [helper.make_tensor_value_info("qkv", TensorProto.FLOAT16, ["B", "H", "W", 3 * channels])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT16, ["B", "H", "W", channels])],
        [numpy_helper.from_array(code.numpy(), name) for code, name in zip(codes, ("pos_q", "pos_k"), strict=True)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("flashrib", 1)]
    model = with_body(helper.make_model(graph, opset_imports=opsets, ir_version=10), "onnxruntime")
    session = open_on_gpu(build_operators(model, tmp_path / "o.so"), tmp_path / "o.so")
    given = qkv.half()
    operands = [tensor.float().cuda() for tensor in (given, *codes)]
    wanted = window_attention(*operands, layer.window, layer.heads, layer.shift, form="reference").cpu()
    found = run_poisoned(session, {"qkv": given.numpy()}, "out", tuple(wanted.shape))
    assert error_of(found, wanted) <= BOUNDS["fp16"]


@pytest.mark.parametrize("library", [True, False], ids=["library", "plain"])
def test_bf16(library: bool, tmp_path: Path) -> None:
    """From a checkpoint it runs; the plain file runs, or one line says which kernel is missing."""
    small, path = small_network(), tmp_path / "m.onnx"
    if library:
        save_safetensors(tmp_path / "c.safetensors", small)
        build_with_library(tmp_path / "c.safetensors", path, LibraryOptions(("current",), "bf16"))
    else:
        export_file(small, path, ExportOptions(precision="bf16"))
    pictures = torch.rand(2, 3, 29, 33, generator=torch.Generator().manual_seed(0))
    said, found = "", None
    try:
        with OnnxRuntimeCudaSession(path) as session:
            found = torch.from_numpy(session.run(pictures.numpy()))
    except SessionError as error:
        said = str(error)
    if found is None:
        assert not library
        assert "computes in bf16, for which ONNX Runtime's CUDA provider has no kernel of" in said
        assert "\n" not in said
        return
    with torch.inference_mode():
        assert error_of(found, small(pictures)) <= BOUNDS["bf16"]


@pytest.mark.parametrize("precision", list(BOUNDS))
def test_classifier(precision: str, tmp_path: Path) -> None:
    trained = load_model(TRAINED)
    manifest = _built(trained, tmp_path, ExportOptions(precision=precision))
    pictures = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with OnnxRuntimeCudaSession(tmp_path / "fast.onnx") as session, torch.inference_mode():
        assert (session.library, manifest.operators) == (True, 1)
        found = torch.from_numpy(session.run(pictures.numpy()))
        wanted = trained(pictures)
    assert error_of(found, wanted) <= BOUNDS[precision]


@pytest.mark.parametrize("precision", list(BOUNDS))
@pytest.mark.parametrize(
    ("radius", "down", "text", "grid"),
    [(3, 0, 5, (8, 12)), (3, 4, 5, (8, 12)), (9, 0, 70, (23, 37)), (16, 4, 64, (40, 24))],
)
def test_step(radius: int, down: int, text: int, grid: tuple[int, int], precision: str, tmp_path: Path) -> None:
    """Grids that are no multiples of the tiles, with pooled keys and without."""
    config = tiny(radius, down, text=text)
    step = network(config)
    _built(step, tmp_path, ExportOptions(precision=precision, tile=grid))
    given = inputs(config, *grid)
    with torch.inference_mode():
        wanted = step(*given)
    session = open_on_gpu(str(tmp_path / "fast.onnx"), tmp_path / "fast.so")
    half = {end.name for end in session.get_inputs() if end.type == "tensor(float16)"}
    feeds = {
        end.name: value.half().numpy() if end.name in half else value.numpy()
        for end, value in zip(session.get_inputs(), given, strict=True)
    }
    found = run_poisoned(session, feeds, session.get_outputs()[0].name, tuple(wanted.shape))
    assert error_of(found, wanted) <= max(BOUNDS[precision], 1.2 * _error_of_pytorch(step, given, wanted, precision))


def _error_of_pytorch(step: Network, given: Sequence[torch.Tensor], wanted: torch.Tensor, precision: str) -> float:
    """What the step loses where PyTorch computes all of it in that precision: bf16 alone costs two per cent in some."""
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    with torch.inference_mode():
        half = [tensor.to("cuda", dtype) if tensor.is_floating_point() else tensor.cuda() for tensor in given]
        return error_of(copy.deepcopy(step).to("cuda", dtype)(*half).float().cpu(), wanted)


def _built(trained: Network, folder: Path, options: ExportOptions) -> LibraryManifest:
    export_file(trained, folder / "plain.onnx", options)
    manifest = build_with_library(folder / "plain.onnx", folder / "fast.onnx", LibraryOptions(("current",)))
    assert manifest.checked_on == find_gpu().name
    return manifest
