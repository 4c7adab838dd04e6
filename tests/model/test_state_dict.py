"""Files -> tensors; every bad file gives one line and runs nothing."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from flashrib.model.checkpoint import describe_checkpoint, load_model, read_state_dict, save_safetensors, sha256_of
from flashrib.runtime.cli import main
from flashrib.runtime.errors import CheckpointError
from tests.model.networks import SMALL, same, small_network

WEIGHT = "body.0.0.attn.to_qkv.weight"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sd, other: sd,
        lambda sd, other: {"params": sd},
        lambda sd, other: {"params": other, "params_ema": sd},
        lambda sd, other: {"params_ema": {}, "params": sd},
        lambda sd, other: {"params_ema": None, "params": sd},
        lambda sd, other: {"params_ema": sd, "step": 7, "optimizer": {"lr": 1e-3}},
        lambda sd, other: {"params_ema": {f"module.{key}": value for key, value in sd.items()}},
    ],
    ids=["bare", "params", "ema-first", "ema-empty", "ema-none", "training-state", "module-prefix"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pth(wrap: Callable[[Any, Any], Any], zipped: bool, tmp_path: Path) -> None:
    wanted = dict(small_network().state_dict())
    other = {key: value + 1 for key, value in wanted.items()}
    torch.save(wrap(wanted, other), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert same(load_model(tmp_path / "x.pth", config=SMALL), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_other_floating_point_becomes_float32(dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    stored = {key: value.to(dtype) for key, value in small_network().state_dict().items()}
    path = tmp_path / f"x.{suffix}"
    torch.save(stored, path) if suffix == "pth" else save_file(stored, path)
    read = read_state_dict(path)
    assert all(value.dtype == torch.float32 for value in read.values())
    assert same(load_model(path, config=SMALL), {key: value.float() for key, value in stored.items()})
    assert describe_checkpoint(path)["dtype"] == str(dtype).removeprefix("torch.")


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    network = small_network()
    save_safetensors(tmp_path / "x.pth", network)
    torch.save(network.state_dict(), tmp_path / "x.safetensors")
    for file in ("x.pth", "x.safetensors"):
        assert same(load_model(tmp_path / file, config=SMALL), network.state_dict())


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def truncated(make: Callable[[Path], object], kept: float) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        make(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])

    return write


def saved(content: Any) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path)


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def pth(path: Path) -> None:
    torch.save(small_network().state_dict(), path)


def legacy(path: Path) -> None:
    torch.save(small_network().state_dict(), path, _use_new_zipfile_serialization=False)


def ours(path: Path) -> None:
    save_safetensors(path, small_network())


def flipped(path: Path) -> None:
    """One byte changed in the middle of the weights."""
    pth(path)
    content = bytearray(path.read_bytes())
    at = content.find(small_network().state_dict()[WEIGHT].numpy().tobytes()[:16])
    assert at > 0
    content[at] ^= 0x40
    path.write_bytes(content)


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")


def torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"")
        archive.writestr("net/constants.pkl", b"")


def with_value(value: float, keys: int = 1) -> dict[str, Tensor]:
    state_dict = {key: tensor.clone() for key, tensor in small_network().state_dict().items()}
    for key in list(state_dict)[:keys]:
        state_dict[key].view(-1)[0] = value
    return state_dict


def pickled(protocol: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(pickle.dumps(Payload(path.parent / "ran"), protocol))


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file or directory"),
    "folder": (lambda path: path.mkdir(), "Is a directory"),
    "empty": (written(b""), r"empty \(0 bytes\)"),
    "one-byte": (written(b"\x80"), "not a checkpoint"),
    "text": (written(b"404: Not Found\n"), "not a checkpoint: .* starts with b'404: Not Found"),
    "html": (written(b"<!DOCTYPE html><html>"), "not a checkpoint"),
    "png": (
        lambda path: Image.new("RGB", (4, 4)).save(path, format="png"),
        r"not a checkpoint: .* starts with b'\\x89PNG",
    ),
    "other-zip": (other_zip, "a ZIP archive, but not a PyTorch checkpoint"),
    "torchscript": (torchscript, "a TorchScript program"),
    "pth-cut-in-the-middle": (truncated(pth, 0.5), "damaged or truncated PyTorch file"),
    "pth-cut-at-the-end": (truncated(pth, 0.999), "damaged or truncated PyTorch file"),
    "pth-byte-flipped": (flipped, "the checksum of its entry '.*' is wrong"),
    "legacy-cut": (truncated(legacy, 0.6), "damaged or truncated PyTorch file"),
    "legacy-cut-early": (truncated(legacy, 0.001), "damaged or truncated PyTorch file"),
    "safetensors-cut": (truncated(ours, 0.9), "damaged or truncated .safetensors file"),
    "safetensors-header-cut": (truncated(ours, 0.01), "damaged or truncated .safetensors file"),
    "safetensors-not-json": (written((64).to_bytes(8, "little") + b"{" * 64), "damaged or truncated .safetensors file"),
    "safetensors-huge-header": (
        written((2**60).to_bytes(8, "little") + b"{}"),
        "damaged or truncated .safetensors file",
    ),
    "safetensors-without-tensors": (lambda path: save_file({}, path, {"a": "b"}), "no tensors inside"),
    "code": (
        lambda path: torch.save({"params": Payload(path.parent / "ran")}, path),
        "refused, .* it asks for posix.mkdir",
    ),
    "code-legacy": (
        lambda path: torch.save(Payload(path.parent / "ran"), path, _use_new_zipfile_serialization=False),
        "refused, .* it asks for posix.mkdir",
    ),
    "code-pickle-2": (pickled(2), "refused, because a pickle can run code"),
    "code-pickle-5": (pickled(5), "refused, because a pickle can run code"),
    "code-pickle-0": (pickled(0), "not a checkpoint"),
    "whole-network": (saved(torch.nn.Linear(2, 2)), "asks for torch.nn.modules.linear.Linear.* save its state_dict"),
    "tensor-alone": (saved(torch.zeros(3)), "holds a Tensor, not a dictionary of tensors"),
    "list": (saved([torch.zeros(3)]), "holds a list"),
    "no-tensors": (
        saved({"epoch": 3, "lr": 1e-3}),
        r"no tensors at its top level, which has 'epoch' \(int\), 'lr' \(float\)",
    ),
    "nothing": (saved({}), "which has no entries"),
    "nested elsewhere": (
        saved({"stuff": small_network().state_dict()}),
        "which of its dictionaries is the network is not known: name it with --key: stuff",
    ),
    "not-only-tensors": (saved({"params": {"a": torch.zeros(1), "b": [1]}}), r"that are no tensors: 'b' \(list\)"),
    "keys-not-names": (saved({0: torch.zeros(1)}), r"no tensors at its top level, which has 0 \(Tensor\)"),
    "nan": (saved({"params_ema": with_value(float("nan"))}), "NaN or infinite weights in 1 tensors: 'proj.weight'"),
    "infinite": (saved(with_value(float("-inf"), 12)), "in 12 tensors: .*'body.0.0.attn.to_qkv.bias' and 2 more"),
    "float64-overflow": (
        saved({"proj.weight": torch.full((1,), 1e300, dtype=torch.float64)}),
        "NaN or infinite weights in 1 tensors",
    ),
    "int8": (saved({"proj.weight": torch.zeros(3, dtype=torch.int8)}), "'proj.weight' is a tensor of torch.int8"),
    "complex": (saved({"proj.weight": torch.zeros(3, dtype=torch.complex64)}), "a tensor of torch.complex64"),
    "float8": (
        lambda path: save_file({"proj.weight": torch.zeros(3, dtype=torch.float8_e4m3fn)}, path),
        "a tensor of torch.float8_e4m3fn",
    ),
    "expanded": (saved({"proj.weight": torch.zeros(1).expand(10**12)}), "does not hold as many values"),
    "meta": (saved({"proj.weight": torch.zeros(3, device="meta")}), "not of floating-point weights"),
    "other-keys": (saved({"conv_first.weight": torch.zeros(3)}), "keys of no architecture .* 'conv_first.weight'"),
    "missing-key": (
        saved({key: value for key, value in small_network().state_dict().items() if key != WEIGHT}),
        f"1 missing: '{re.escape(WEIGHT)}'",
    ),
}


@pytest.mark.parametrize(("make", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files(make: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    make(path)
    for read in (load_model, describe_checkpoint):
        with pytest.raises(CheckpointError, match=says) as caught:
            read(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert len(message) < 1000
    assert not (tmp_path / "ran").exists()


def test_sha256_of(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        sha256_of(tmp_path / "y")


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"")
        archive.writestr("x/data/0", bytes(200_000_000))
    with pytest.raises(CheckpointError, match=r"a ZIP archive of \d+ bytes that claims to hold 200000000: refused"):
        load_model(path)


def test_an_archive_of_a_future_version(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(small_network().state_dict(), path)
    content = bytearray(path.read_bytes())
    position = content.index(b"PK\x01\x02")
    content[position + 6] = 255  # version needed to extract
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        load_model(path)
    assert main(["info", str(path)]) == 1
