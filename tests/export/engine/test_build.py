"""Files, cache and command; TensorRT is not needed where the cache has the engine."""

import dataclasses
import json
import os
import stat
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from flashrib.export.engine import build as module
from flashrib.export.engine.build import build_engine, cache_key, engine_folder
from flashrib.export.engine.engine_from_onnx import Engine
from flashrib.export.engine.options import EngineOptions
from flashrib.export.engine.source import Source, read_source
from flashrib.runtime.artifacts.engine import EngineManifest, read_engine, read_manifest
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.cli import main
from flashrib.runtime.errors import FlashribError, ModelError
from tests.export.engine.sources import TILE, needs_rtx, small_source, write_small
from tests.runtime.models import write_onnx
from tests.runtime.sessions.engines import MANIFEST, PLAN

OPTIONS = EngineOptions("rtx", usual=TILE)


def fitting(source: Source, options: EngineOptions) -> EngineManifest:
    """The manifest of what was asked for."""
    return dataclasses.replace(
        MANIFEST,
        flavour=options.flavour,
        shapes=options.shapes(source.metadata, source.static),
        precision=source.metadata.precision,
        onnx_sha256=source.sha256,
        model=source.metadata,
    )


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A builder that takes no time, and what it built."""
    built: list[str] = []

    def build(source: Any, options: EngineOptions, **_: Any) -> Engine:
        built.append(source.path.name)
        return Engine(PLAN, fitting(source, options))

    monkeypatch.setattr(module, "engine_from_onnx", build)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", types.SimpleNamespace(__version__="1.7.1.116"))
    return built


def test_the_second_build_comes_from_the_cache(builds: list[str], tmp_path: Path) -> None:
    onnx, cache = write_small(tmp_path / "m.onnx"), tmp_path / "cache"
    results = [build_engine(onnx, tmp_path / name, OPTIONS, cache=cache) for name in ("a.engine", "b.engine")]
    assert results == [(fitting(read_source(onnx), OPTIONS), cached) for cached in (False, True)]
    assert builds == ["m.onnx"]
    for name in ("a.engine", "b.engine"):
        assert read_engine(tmp_path / name, read_manifest(tmp_path / name)) == PLAN
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["m.onnx", "cache", "a.engine", "a.engine.json", "b.engine", "b.engine.json"]
    )


def test_a_damaged_cache_is_built_anew(builds: list[str], tmp_path: Path) -> None:
    onnx, cache = write_small(tmp_path / "m.onnx"), tmp_path / "cache"
    build_engine(onnx, tmp_path / "a.engine", OPTIONS, cache=cache)
    (cached,) = cache.glob("*.engine")
    cached.write_bytes(PLAN[:-1] + b"\0")
    assert build_engine(onnx, tmp_path / "b.engine", OPTIONS, cache=cache) == (
        fitting(read_source(onnx), OPTIONS),
        False,
    )
    assert (tmp_path / "b.engine").read_bytes() == PLAN


def test_an_engine_under_anothers_name_is_not_taken(builds: list[str], tmp_path: Path) -> None:
    """Whole, with a hash that agrees, but made from another file: as somebody else may have put it there."""
    onnx, cache = write_small(tmp_path / "m.onnx"), tmp_path / "cache"
    build_engine(onnx, tmp_path / "a.engine", OPTIONS, cache=cache)
    (cached,) = cache.glob("*.engine")
    for change in ({"onnx_sha256": "ab" * 32}, {"version": "1.6.0"}, {"precision": "bf16"}):
        values = json.loads(manifest_path(cached).read_text()) | change
        manifest_path(cached).write_text(json.dumps(values))
        assert build_engine(onnx, tmp_path / "b.engine", OPTIONS, cache=cache)[1] is False
    assert build_engine(onnx, tmp_path / "b.engine", OPTIONS, cache=cache)[1] is True


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_cache_that_others_may_write_to_is_not_trusted(
    builds: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    onnx, cache = write_small(tmp_path / "m.onnx"), tmp_path / "cache"
    build_engine(onnx, tmp_path / "a.engine", OPTIONS, cache=cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    cache.chmod(0o777)
    before = {path: path.read_bytes() for path in cache.iterdir()}
    assert build_engine(onnx, tmp_path / "b.engine", OPTIONS, cache=cache)[1] is False
    assert "may be written to by others" in caplog.text
    assert {path: path.read_bytes() for path in cache.iterdir()} == before
    cache.chmod(0o755)
    assert build_engine(onnx, tmp_path / "b.engine", OPTIONS, cache=cache)[1] is True


def test_a_cache_that_cannot_be_written(builds: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    onnx = write_small(tmp_path / "m.onnx")
    assert build_engine(onnx, tmp_path / "a.engine", OPTIONS, cache=tmp_path / "cache") == (
        fitting(read_source(onnx), OPTIONS),
        False,
    )
    assert (tmp_path / "a.engine").read_bytes() == PLAN


@pytest.mark.parametrize(
    "other",
    [
        {"targets": ("sm86",)},
        {"usual": (96, 96)},
        {"largest": (96, 96)},
        {"workspace": 100},
    ],
    ids=str,
)
def test_the_key_knows_every_option(other: dict[str, Any], builds: list[str], tmp_path: Path) -> None:
    source = small_source(tmp_path)
    assert cache_key(source, OPTIONS) == cache_key(source, EngineOptions("rtx", usual=TILE))
    assert cache_key(source, OPTIONS) != cache_key(source, EngineOptions("rtx", **({"usual": TILE} | other)))


def test_the_key_knows_model_and_version(builds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {cache_key(small_source(tmp_path), OPTIONS), cache_key(small_source(tmp_path, "bf16"), OPTIONS)}
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", types.SimpleNamespace(__version__="1.8"))
    keys.add(cache_key(small_source(tmp_path), OPTIONS))
    assert len(keys) == 3


def test_engine_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engine_folder() == tmp_path / "flashrib" / "engines"


def test_missing_folder(builds: list[str], tmp_path: Path) -> None:
    with pytest.raises(FlashribError, match=r"a\.engine: the folder .*none does not exist"):
        build_engine(write_small(tmp_path / "m.onnx"), tmp_path / "none" / "a.engine", OPTIONS)
    assert builds == []


def test_fp32_is_refused_before_anything_is_built(builds: list[str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"m\.onnx: computes in fp32, .*: export it with --precision fp16"):
        build_engine(write_onnx(tmp_path / "m.onnx"), tmp_path / "a.engine", OPTIONS)
    assert builds == []


def test_the_command(
    builds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = ["build", str(write_small(tmp_path / "m.onnx")), "-o", str(tmp_path / "m.engine"), "--flavour", "rtx"]
    assert main([*command, "--opt", "64x64", "--target", "sm86,sm120", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["cached"], about["targets"], about["scratch_bytes"]) == (False, ["sm86", "sm120"], 152303616)
    assert main([*command, "--opt", "64x64", "--target", "sm86,sm120"]) == 0
    text = capsys.readouterr().out
    assert "from the cache, built in 18.8 s" in text
    assert "sizes           64x64\n" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--flavour", "rtx", "--opt", "64"], "'64' is not height x width such as 256x320"),
        (["--flavour", "onnx"], "invalid choice"),
        (["--flavour", "rtx", "--target", "86"], "target '86' is neither"),
        (["--flavour", "rtx", "--workspace", "0"], "'0' is not a whole number"),
        ([], "--flavour"),
    ],
)
def test_wrong_commands(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "m.onnx", "-o", str(tmp_path / "m.engine"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_missing_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    onnx = write_small(tmp_path / "m.onnx")
    assert main(["build", str(onnx), "-o", str(tmp_path / "m.engine"), "--flavour", "tensorrt"]) == 1
    assert capsys.readouterr().err == (
        "flashrib: error: an engine of the flavour tensorrt needs the package 'tensorrt', which is not installed:"
        " pip install 'flashrib[tensorrt]'\n"
    )


@needs_rtx
@pytest.mark.slow
def test_a_real_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    onnx = write_small(tmp_path / "m.onnx")
    built = build_engine(onnx, tmp_path / "a.engine", OPTIONS)
    again = build_engine(onnx, tmp_path / "b.engine", OPTIONS)
    assert (built[1], again[1]) == (False, True)
    assert isinstance(built[0], EngineManifest)
    assert (tmp_path / "a.engine").read_bytes() == (tmp_path / "b.engine").read_bytes()
    assert read_manifest(tmp_path / "a.engine") == built[0]
