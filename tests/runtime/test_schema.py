"""Whatever a file says about itself, a command ends in one line: values of wrong types and ranges in every field of every kind of file."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from flashrib.runtime import schema
from flashrib.runtime.artifacts.engine import SCHEMA as ENGINE
from flashrib.runtime.artifacts.info import SCHEMA, ModelInfo
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.artifacts.package import SCHEMA as PACKAGE
from flashrib.runtime.cli import main
from tests.runtime.sessions.engines import MANIFEST, write_engine
from tests.runtime.sessions.packages import write_package
from tests.runtime.sessions.test_onnxruntime import METADATA, nearest

DEEP: Any = []
for _ in range(50):
    DEEP = [DEEP]
STRANGE = [-1, 0, 10**30, 0.5, True, None, "", "text", "\x1b[31m", "\ud800", [], [1], [[1, 2, 3]], {}, {"a": [1]}, DEEP]


def ends_in_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    code = main(argv)
    err = capsys.readouterr().err
    assert "this is a bug" not in err, err
    assert code in (0, 1)
    assert len(err.splitlines()) == code, err
    return code


@pytest.mark.parametrize("name", list(SCHEMA))
def test_properties_of_onnx_files(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, refused = tmp_path / "m.onnx", 0
    for value in [json.dumps(value) for value in STRANGE] + ["NaN", "[1", "-Infinity", "[" * 5000, "", "x" * 5000]:
        model = nearest()
        helper.set_model_props(model, METADATA.to_properties() | {f"flashrib.{name}": value})
        path.write_bytes(model.SerializeToString())
        refused += ends_in_one_line(["info", str(path)], capsys)
    assert refused >= 1


@pytest.mark.parametrize("name", list(SCHEMA) + list(ENGINE) + ["model", "format"])
def test_manifests_of_engines(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, refused = write_engine(tmp_path / "a.engine"), 0
    for value in STRANGE:
        values = json.loads(MANIFEST.to_json())
        (values["model"] if name in SCHEMA and name not in ENGINE else values)[name] = value
        manifest_path(path).write_text(json.dumps(values))
        refused += ends_in_one_line(["info", str(path)], capsys)
    assert refused >= 1


@pytest.mark.parametrize("name", [*PACKAGE, "model", "format"])
def test_manifests_of_packages(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pt2"
    manifest = write_package(path)
    for value in STRANGE:
        manifest_path(path).write_text(json.dumps(json.loads(manifest.to_json()) | {name: value}))
        assert ends_in_one_line(["info", str(path)], capsys) in (0, 1)


@pytest.mark.parametrize("text", ["", "[]", "null", "1", "{}", "[" * 100_000, "NaN", '{"format": 1}', "\x00", "{" * 9])
def test_manifests_that_are_none(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_engine(tmp_path / "a.engine")
    manifest_path(path).write_text(text)
    assert ends_in_one_line(["info", str(path)], capsys) == 1


def test_a_pipe_and_a_huge_file_as_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_engine(tmp_path / "a.engine")
    manifest_path(path).unlink()
    os.mkfifo(manifest_path(path))
    assert ends_in_one_line(["info", str(path)], capsys) == 1
    manifest_path(path).unlink()
    with manifest_path(path).open("wb") as file:
        file.truncate(2**40)
    assert ends_in_one_line(["info", str(path)], capsys) == 1


def test_every_field_has_a_rule() -> None:
    assert SCHEMA.keys() == ModelInfo.__dataclass_fields__.keys()
    schema.check(ModelInfo().to_json(), SCHEMA)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (schema.whole(1, 3), [1, 3], [0, 4, True, 1.0, "1", None]),
        (schema.number(0, 1), [0, 1, 0.5], [-1e-9, float("nan"), float("inf"), True, "0"]),
        (schema.text(), ["", "a b", "é"], ["a\n", "\x1b", "\ud800", "x" * 501, 1, None]),
        (schema.one_of("a", 1), ["a", 1], [True, 1.0, "b", ["a"]]),
        (schema.several(schema.whole(0, 9), 1, 2), [[1], (1, 2)], [[], [1, 2, 3], [10], "12", {1: 1}]),
        (schema.optional(schema.BOOLEAN), [None, True], [0, "true"]),
        (schema.OBJECT, [{}, {"a": 1}], [[], {1: 1}, None]),
        (schema.SHA256, ["ab" * 32], ["AB" * 32, "ab", None]),
    ],
)
def test_rules(rule: schema.Rule, good: list[Any], bad: list[Any]) -> None:
    assert all(rule.holds(value) for value in good)
    assert not any(rule.holds(value) for value in bad)


def test_messages_are_printable_and_short() -> None:
    with pytest.raises(ValueError, match=r"^scale is '\\x1b\[31m', but it must be a whole number from 1 to 16$"):
        schema.check({"scale": "\x1b[31m"}, SCHEMA)
    assert len(schema.shown("x" * 10**6)) < 100
