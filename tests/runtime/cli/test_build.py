"""The table of builders: what a row does not take is refused, and a row from outside is one of them."""

import argparse
import json

import pytest

from flashrib.runtime.cli import build, main
from flashrib.runtime.cli.builders import BUILDERS, Builder, Built

# A value of each option that a builder may take.
GIVEN = {
    "target": "current",
    "min": "64x64",
    "opt": "64x64",
    "max": "64x64",
    "workspace": "100",
    "timing_cache": "file",
    "version_compatible": None,
    "attention": "plugin",
    "precision": "fp16",
    "arch": "sst",
    "scale": "2",
    "key": "params",
    "noise_seed": "1",
    "no_noise": None,
}


@pytest.mark.parametrize("name", list(BUILDERS))
def test_a_builder_refuses_the_options_that_it_does_not_take(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(BUILDERS[name].options) < GIVEN.keys()
    for option in GIVEN.keys() - set(BUILDERS[name].options):
        flag = f"--{option.replace('_', '-')}"
        value = [] if GIVEN[option] is None else [GIVEN[option]]
        assert main(["build", "m.onnx", "-o", "out", "--flavour", name, flag, *value]) == 2
        assert f"{flag}: --flavour {name} has no such option, it belongs to" in capsys.readouterr().err


def test_options_are_false_where_they_are_not_given() -> None:
    """`check_options` relies on it."""
    parser = argparse.ArgumentParser()
    build.add_arguments(parser)
    arguments = parser.parse_args(["m.onnx", "-o", "out", "--flavour", "rtx"])
    assert not any(getattr(arguments, name) for name in GIVEN)


def test_a_builder_from_outside(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def build_toy(arguments: argparse.Namespace) -> Built:
        return Built({"toy": str(arguments.output), "size": arguments.opt}, [("toy", str(arguments.output))])

    monkeypatch.setitem(BUILDERS, "toy", Builder("toy", "for tests", ("opt",), build_toy))
    assert main(["build", "m.onnx", "-o", "out.toy", "--flavour", "toy", "--opt", "8x9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"toy": "out.toy", "size": [8, 9]}
    assert main(["build", "m.onnx", "-o", "out.toy", "--flavour", "toy", "--min", "8x9"]) == 2
