"""What is loaded ahead, and for which command lines."""

import subprocess
import sys
from pathlib import Path

import pytest

from flashrib.runtime.sessions import early


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("upscale a.png -o b.png", True),
        ("video a.mkv -o b.mkv --device cuda:1", True),
        ("upscale a.png -o b.png --session=torch --model x.onnx", True),
        ("upscale a.png -o b.png --model x.safetensors", True),
        ("upscale a.png -o b.png --model photo", True),
        ("upscale a.png -o b.png --model=x.onnx", False),
        ("upscale a.png -o b.png --session onnxruntime", False),
        ("upscale a.png -o b.png --device cpu", False),
        ("upscale a.png -o b.png --cluster local", False),
        ("upscale a.png -o b.png --provider=cuda", False),
        ("upscale --help", False),
        ("info x.pth", False),
        ("", False),
    ],
)
def test_which_command_lines(line: str, wanted: bool) -> None:
    assert early.wants_gpu(line.split()) == wanted


def test_nothing_is_loaded_without_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(early, "_NVIDIA", tmp_path / "none")
    assert early.begin(["upscale", "a.png", "-o", "b.png"]) == []


def test_what_fails_is_no_matter(tmp_path: Path) -> None:
    """A driver that is no driver: PyTorch is loaded, and nothing is said."""
    pytest.importorskip("triton")
    code = (
        "import sys\nfrom pathlib import Path\nfrom flashrib.runtime.sessions import early\n"
        f"early._NVIDIA = Path({str(tmp_path)!r})\nearly._DRIVER = 'libno.so'\n"
        "for thread in early.begin(['upscale', 'a.png', '-o', 'b.png']): thread.join()\n"
        "assert 'torch' in sys.modules and 'flashrib.model.gpu' in sys.modules\n"
        "assert 'torch._dynamo' not in sys.modules and 'torch._inductor' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_the_network_for_gpus_runs_without_the_compiler() -> None:
    """It takes longer to load than PyTorch; where a compiler asks for the kernels of an operator, it gets them."""
    pytest.importorskip("triton")
    code = (
        "import sys, torch\nfrom flashrib.model import build_model\nfrom flashrib.model.gpu import gpu_network\n"
        "with torch.inference_mode():\n"
        "    gpu_network(build_model('sst-light', 2).eval(), torch.float32)(torch.rand(1, 3, 64, 64))\n"
        "assert 'torch._dynamo' not in sys.modules and 'torch._inductor' not in sys.modules\n"
        "kernels = [k.__name__ for k in torch._library.triton.get_triton_kernels_for_op('flashrib::gpu_chain')]\n"
        "assert kernels == ['chain_kernel'], kernels\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
