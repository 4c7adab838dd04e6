"""SST-Real through files, sessions and tiles: the same result as the network's own, and tiles see the noise of the whole picture."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flashrib.export.bisect import bisect
from flashrib.export.options import ExportOptions
from flashrib.export.to_file import export_file
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.checkpoint import load_model, save_safetensors
from flashrib.model.gpu import gpu_network
from flashrib.runtime.cli import main
from flashrib.runtime.errors import ModelError
from flashrib.runtime.noise import NoiseMap, repeated_noise
from flashrib.runtime.pictures.files import read_picture, write_picture
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.quality.parity import verify
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.tiling.upscale import DEFAULT_HALO, upscale_array
from tests.model.architectures.sst_real.test_recognise import SMALL
from tests.model.architectures.sst_real.vectors import network
from tests.official import seeded
from tests.runtime.models import write_real

SIZE = (37, 52)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_real(tmp_path_factory.mktemp("real") / "real.safetensors")


@pytest.fixture(scope="module")
def onnx_file(checkpoint: Path) -> Path:
    path = checkpoint.with_name("real.onnx")
    export_file(load_model(checkpoint), path, options=ExportOptions())
    return path


@pytest.fixture(scope="module")
def files_with_noise(checkpoint: Path) -> dict[str | int, Path]:
    """Files with the noise inside, or none, by its source."""
    network = load_model(checkpoint)
    files: dict[str | int, Path] = {source: checkpoint.with_name(f"{source}.onnx") for source in ("none", 3)}
    for source, file in files.items():
        export_file(network, file, ExportOptions(noise=source))
    return files


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


VARIANTS = pytest.mark.parametrize("source", ["none", 3])


@VARIANTS
def test_noise_inside_a_file(source: str | int, checkpoint: Path, files_with_noise: dict[str | int, Path]) -> None:
    """One input, the noise of the seed or none; tiles see the noise that the whole has there."""
    picture = pixels()
    with SessionSpec(files_with_noise[source], device="cpu").open() as session:
        assert session.info.noise == 0
        assert session.info.noise_seed == (None if source == "none" else 3)
        whole = upscale_array(session, picture, tile=64)
        tiled = upscale_array(session, picture, tile=16, halo=64)
    noise = repeated_noise(3, 4, 16, *SIZE) if source == 3 else np.zeros((1, 3, 192, 256), np.float32)
    with torch.no_grad():
        batch = torch.from_numpy(picture).permute(2, 0, 1)[None]
        exact = load_model(checkpoint).reference(batch, torch.from_numpy(noise))
    assert np.abs(whole - exact[0].permute(1, 2, 0).numpy()).max() <= 1e-4
    assert np.abs(whole - tiled).max() <= 1e-4


@pytest.mark.shared
@pytest.mark.parametrize("name", ["real_fuse_all", "real_pipeline_min16"])
def test_tiles_with_the_usual_halo(name: str, tmp_path: Path) -> None:
    """Networks of the official vectors, tiles that do not see all of the picture: 60 dB to the whole, or better."""
    trained = network(name)
    save_safetensors(tmp_path / "real.safetensors", trained)
    step = trained.config.pad_to
    picture = np.random.default_rng(2).random((step, 4 * step, 3), np.float32)
    with SessionSpec(tmp_path / "real.safetensors", device="cpu").open() as session:
        whole = upscale_array(session, picture, tile=4 * step)
        tiled = upscale_array(session, picture, tile=step, halo=DEFAULT_HALO)
    error = np.square(whole - tiled).mean()
    print(f"{name}: {10 * np.log10(np.square(np.ptp(whole)) / max(error, 1e-30)):.1f} dB")
    assert error <= 1e-6 * np.square(np.ptp(whole))


@VARIANTS
def test_noise_inside_the_form_for_gpus(source: str | int) -> None:
    network = network_from_config(dataclasses.replace(SMALL, ffn_dim=32)).eval().with_noise(source)
    batch = torch.rand(1, 3, 21, 18, generator=seeded(0))
    with torch.no_grad():
        assert torch.allclose(gpu_network(network, torch.float32)(batch), network.reference(batch), atol=1e-5)


def test_every_variant_is_verified(checkpoint: Path, onnx_file: Path, files_with_noise: dict[str | int, Path]) -> None:
    """Each file against the checkpoint with the noise that it has."""
    files = [onnx_file, files_with_noise["none"], files_with_noise[3]]
    parity = verify(checkpoint, files, side=32)
    assert [artifact.failure for artifact in parity.artifacts] == [None] * 3
    other = verify(files[2], files[:2], side=32)
    assert other.artifacts[0].failure is None  # given the noise of the seed
    assert "has the noise of seed 3 inside, the other no noise" in str(other.artifacts[1].failure)


def test_the_layer_that_diverges(checkpoint: Path, onnx_file: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(onnx_file)
    (weight,) = (i for i in model.graph.initializer if i.name == "first.bias")
    weight.raw_data = (onnx.numpy_helper.to_array(weight) + 1).tobytes()
    for entry in list(model.metadata_props):
        if entry.key == "flashrib.weights_sha256":
            model.metadata_props.remove(entry)
    onnx.save(model, tmp_path / "a.onnx")
    batch = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    noise = NoiseMap(1).part(slice(0, 16), slice(0, 16))
    first, _ = bisect(checkpoint, tmp_path / "a.onnx", batch, 1e-3, noise=noise)
    assert first is not None
    assert (first.layer, first.end) == ("first", "output")


def test_export_command(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "a.onnx")
    assert main(["export", str(checkpoint), "-o", output, "--noise-seed", "0", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["noise_seed"], document.get("noise")) == (0, None)
    assert main(["info", output]) == 0
    assert "noise seed" in capsys.readouterr().out
    assert main(["export", "-o", output, "--no-noise"]) == 2  # the bundled network takes none
    assert "takes no noise: leave --noise-seed and --no-noise out" in capsys.readouterr().err
    assert main(["build", output, "-o", "a.engine", "--flavour", "rtx", "--noise-seed", "0"]) == 2
    assert "--noise-seed: --flavour rtx has no such option" in capsys.readouterr().err


def test_what_takes_no_noise_says_so(onnx_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(8):
        write_picture(tmp_path / f"{index}.png", Picture((pixels() * 255).astype(np.uint8)))
    output = str(tmp_path / "out")
    command = ["calibrate", str(onnx_file), "--pictures", str(tmp_path), "-o", output, "--mode", "int8"]
    assert main([*command, "--held-out", "2"]) in (1, 2)
    assert "takes noise beside the picture" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
