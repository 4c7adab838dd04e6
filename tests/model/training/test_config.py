"""Training configurations: read, defaulted, refused."""

import os
from pathlib import Path

import pytest

from flashrib.model.training.config import read_config
from flashrib.runtime.errors import UsageError


def test_reads_and_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('data = ["pictures"]\nlr = 1\ndownscales = [1.0, 0.5]\n')
    config = read_config(path)
    assert config.data == (str(tmp_path / "pictures"),)
    assert config.lr == 1.0
    assert isinstance(config.lr, float)
    assert config.downscales == (1.0, 0.5)
    assert (config.arch, config.scale, config.batch) == ("sst-light", 2, 16)


BAD = {
    "no data": ("steps = 5", "field data is missing"),
    "unknown field": ('data = ["x"]\nstep = 5', "unknown field.*step"),
    "not TOML": ("data = [", "cannot be read as a TOML"),
    "wrong type": ('data = ["x"]\nsteps = "many"', "steps = 'many' must be of type int"),
    "bool for int": ('data = ["x"]\nsteps = true', "steps = True must be of type int"),
    "data is no list": ('data = "x"', "data = 'x' must be of type list"),
    "empty data": ("data = []", r"data = \(\) is out of range"),
    "unknown preset": ('data = ["x"]\narch = "swin"', "arch = 'swin' must be one of sst-light, "),
    "scale": ('data = ["x"]\nscale = 5', "scale = 5 must be one of 2, 3, 4"),
    "warm-up longer than the run": ('data = ["x"]\nsteps = 10\nwarmup = 10', "warmup = 10 is out of range"),
    "precision": ('data = ["x"]\nprecision = "fp8"', "precision = 'fp8' must be one of fp32, tf32, bf16"),
    "folders of numbers": ("data = [1]", "data = .* must be a list of .* each a line of text"),
    "a folder with NUL": ('data = ["a\\u0000b"]', "must be a list of .* each a line of text"),
    "reductions of text": ('data = ["x"]\ndownscales = ["half"]', "downscales = .* must be a list of .* each a number"),
    "a start with NUL": ('data = ["x"]\nstart = "a\\u0000b"', "holds a character that no name has"),
    "nested deeply": (f"data = {'[' * 5000}", "cannot be read as a TOML training configuration"),
    "endless rate": ('data = ["x"]\nlr = inf', "lr = inf is out of range"),
    "endless decay": ('data = ["x"]\nweight_decay = inf', "weight_decay = inf is out of range"),
    "endless opponent": ('data = ["x"]\nadversarial = inf', "adversarial = inf is out of range"),
    "seed": ('data = ["x"]\nseed = 10000000000000000000', "seed = 10000000000000000000 is out of range"),
    "negative rate": ('data = ["x"]\nlr = -1.0', "lr = -1.0 is out of range"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_refuses(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.toml")
    with pytest.raises(UsageError, match="it is no regular file"):
        read_config(tmp_path / "run.toml")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.toml: cannot be read"):
        read_config(tmp_path / "missing.toml")
