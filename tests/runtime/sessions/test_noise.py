"""SST-Real through files, sessions and tiles: the same result as the network's own, and tiles see the noise of the whole picture."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flashrib.export.options import ExportOptions
from flashrib.export.to_file import export_file
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.checkpoint import load_model, save_safetensors
from flashrib.runtime.cli import main
from flashrib.runtime.errors import ModelError
from flashrib.runtime.pictures.files import read_picture, write_picture
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.tiling.noise import NoiseMap
from flashrib.runtime.tiling.upscale import upscale_array
from tests.model.architectures.sst_real.test_recognise import SMALL
from tests.official import seeded

SIZE = (37, 52)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = network_from_config(SMALL)
    random = seeded(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    path = tmp_path_factory.mktemp("real") / "real.safetensors"
    save_safetensors(path, network)
    return path


@pytest.fixture(scope="module")
def onnx_file(checkpoint: Path) -> Path:
    path = checkpoint.with_name("real.onnx")
    export_file(load_model(checkpoint), path, options=ExportOptions())
    return path


@pytest.fixture(params=["torch", "onnxruntime"])
def session(request: pytest.FixtureRequest, checkpoint: Path, onnx_file: Path) -> Session:
    path = checkpoint if request.param == "torch" else onnx_file
    return SessionSpec(path, device="cpu").open()


def pixels() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).random((*SIZE, 3), np.float32)


def test_a_picture_with_the_noise_of_a_seed(session: Session, checkpoint: Path) -> None:
    picture = pixels()
    session.seed = 5
    with session:
        assert session.info.noise == 1.0
        assert (session.info.alignment, session.info.minimum, session.info.scale) == (16, 9, 4)
        whole = upscale_array(session, picture, tile=64)
        session.seed = 6
        other = upscale_array(session, picture, tile=64)
    noise = torch.from_numpy(NoiseMap(5).part(slice(0, 48), slice(0, 64)))
    with torch.no_grad():
        exact = load_model(checkpoint).reference(torch.from_numpy(picture).permute(2, 0, 1)[None], noise)
    assert np.abs(whole - exact[0].permute(1, 2, 0).numpy()).max() <= 1e-4
    assert np.abs(whole - other).max() > 0.01


def test_tiles_see_the_noise_of_the_whole(session: Session) -> None:
    """With a halo as wide as the picture every tile computes all of it, from where it begins on: the same pixels, to rounding."""
    picture = pixels()
    with session:
        whole = upscale_array(session, picture, tile=64)
        tiled = upscale_array(session, picture, tile=16, halo=64)
    assert np.abs(whole - tiled).max() <= 1e-4


def test_without_noise_it_is_zero(session: Session) -> None:
    batch = np.ascontiguousarray(pixels().transpose(2, 0, 1)[None])
    with session:
        plain = session.run(batch)
        assert np.array_equal(plain, session.run(batch, np.zeros((1, 3, 192, 256), np.float32)))


def test_a_static_tile(checkpoint: Path, tmp_path: Path) -> None:
    export_file(load_model(checkpoint), tmp_path / "a.onnx", options=ExportOptions(tile=(48, 64)))
    with SessionSpec(tmp_path / "a.onnx").open() as session:
        assert session.info.fixed_size == (48, 64)
        assert upscale_array(session, pixels(), halo=16).shape == (148, 208, 3)


def test_seed_of_the_command(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    eight = (pixels() * 255).astype(np.uint8)
    write_picture(tmp_path / "a.png", Picture(eight))
    results = []
    for seed in ("0", "1", "1"):
        command = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--overwrite", "--seed", seed]
        assert main([*command, "--model", str(checkpoint), "--device", "cpu"]) == 0
        results.append(read_picture(tmp_path / "b.png").pixels)
    assert np.array_equal(results[1], results[2])
    assert not np.array_equal(results[0], results[1])
    assert main(["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "c.png"), "--seed", "1"]) == 2
    assert "takes no noise: leave it out" in capsys.readouterr().err


def test_a_file_that_lacks_its_noise(onnx_file: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(onnx_file)
    for entry in model.metadata_props:
        if entry.key == "flashrib.noise":
            entry.value = "0.0"
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="must have the one input 'input'"):
        SessionSpec(tmp_path / "a.onnx").open()


def test_what_takes_no_noise_says_so(
    checkpoint: Path, onnx_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(8):
        write_picture(tmp_path / f"{index}.png", Picture((pixels() * 255).astype(np.uint8)))
    output = str(tmp_path / "out")
    for command in (
        ["build", str(onnx_file), "-o", output, "--flavour", "rtx"],
        ["build", str(checkpoint), "-o", output, "--flavour", "aoti", "--target", "cpu"],
        ["calibrate", str(onnx_file), "--pictures", str(tmp_path), "-o", output, "--mode", "int8", "--held-out", "2"],
    ):
        assert main(command) in (1, 2)
        assert "takes noise beside the picture" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
