"""Every field of `ModelInfo` survives each of the places that it is written to, and neutral fields leave no trace there."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from flashrib.runtime.artifacts.engine import read_manifest
from flashrib.runtime.artifacts.info import ModelInfo, info_of
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.artifacts.package import read_package_manifest
from flashrib.runtime.errors import ModelError
from tests.runtime.sessions.engines import write_engine
from tests.runtime.sessions.packages import write_package

OTHER: dict[str, Any] = {
    "architecture": "toy",
    "scale": 3,
    "alignment": 24,
    "minimum": 5,
    "windows": ((4, 4), (8, 6)),
    "ranks": (4, 6),
    "heads": (2,),
    "parameters": 1000,
    "precision": "fp16",
    "whole_picture": True,
    "attention": "standard",
    "source_sha256": "ab" * 32,
    "version": "9.9",
    "io": "fp16",
    "batch": 4,
    "opset": 20,
    "clamp": True,
    "calibration": {"layers": ["a", "b"], "loss_db": 0.5},
    "task": "classify",
    "channels": 1,
    "fixed_size": (24, 48),
    "noise": 0.25,
    "noise_seed": 7,
    "weights_sha256": "ab:cd",
    "architecture_config": {"radius": 3, "offsets": [[0, 1], [1, 0]], "text": None},
}
FULL = ModelInfo(**OTHER)
ADDED_LATER = ("task", "channels", "fixed_size", "noise", "noise_seed", "weights_sha256", "architecture_config")


def test_the_cases_change_every_field() -> None:
    assert OTHER.keys() == {field.name for field in dataclasses.fields(ModelInfo)}
    assert all(getattr(ModelInfo(), name) != value for name, value in OTHER.items())


@pytest.mark.parametrize("name", list(OTHER))
def test_onnx_properties(name: str) -> None:
    info = dataclasses.replace(ModelInfo(), **{name: OTHER[name]})
    assert ModelInfo.from_properties(info.to_properties(), "model") == info
    assert ModelInfo.from_json(json.loads(json.dumps(info.to_json()))) == info


def test_all_fields_through_properties_and_manifests(tmp_path: Path) -> None:
    assert ModelInfo.from_properties(FULL.to_properties(), "model") == FULL
    assert read_manifest(write_engine(tmp_path / "a.engine", model=FULL)).model == FULL
    write_package(tmp_path / "a.pt2", model=FULL)
    assert read_package_manifest(tmp_path / "a.pt2").model == FULL


def test_files_say_nothing_of_fields_that_older_versions_lack_and_that_are_neutral(tmp_path: Path) -> None:
    """So that files that were exported before those fields existed can be made again, to the byte."""
    old = dataclasses.replace(FULL, **{name: getattr(ModelInfo(), name) for name in ADDED_LATER})
    assert {f"flashrib.{name}" for name in OTHER if name not in ADDED_LATER} == old.to_properties().keys()
    written = json.loads(manifest_path(write_engine(tmp_path / "a.engine", model=old)).read_text())
    assert list(written["model"]) == [name for name in OTHER if name not in ADDED_LATER]


def test_properties_are_those_of_before() -> None:
    """The order and every byte: the sum is that of `flashrib.runtime.metadata` in the version before `ModelInfo`."""
    old = dataclasses.replace(FULL, **{name: getattr(ModelInfo(), name) for name in ADDED_LATER})
    text = "\n".join(f"{key}={value}" for key, value in old.to_properties().items())
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "dc94c6edaee6196b7ca8fb062731eca8a614484c9efa6e1bc2d1c02077748030"
    )


def test_a_cut_off_map_always_lacks_a_field_that_must_be_there() -> None:
    properties = list(FULL.to_properties().items())
    for length in range(len(properties)):
        wanted = "is missing: another program has changed" if length else "says nothing about itself"
        with pytest.raises(ModelError, match=wanted):
            ModelInfo.from_properties(dict(properties[:length]), "model")


def test_an_unknown_field_is_of_a_later_version(tmp_path: Path) -> None:
    path = manifest_path(write_engine(tmp_path / "a.engine"))
    manifest = json.loads(path.read_text())
    manifest["model"]["mood"] = "good"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="'mood' is unknown: a later version"):
        read_manifest(tmp_path / "a.engine")


def test_what_was_built_for_some_sizes_says_so(tmp_path: Path) -> None:
    model = dataclasses.replace(FULL, fixed_size=None, minimum=33)
    some = read_manifest(write_engine(tmp_path / "a.engine", model=model)).info
    assert (some.fixed_size, some.minimum, some.io, some.batch) == (None, 64, "fp32", 1)
    one = read_manifest(write_engine(tmp_path / "b.engine", model=model, shapes=((128, 128),) * 3)).info
    assert (one.fixed_size, one.minimum) == ((128, 128), 33)
    write_package(tmp_path / "a.pt2", model=model)
    assert read_package_manifest(tmp_path / "a.pt2").info == dataclasses.replace(model, fixed_size=(24, 48))


def test_a_configuration_may_state_more_facts() -> None:
    class Config:
        def facts(self) -> dict[str, Any]:
            return {
                "architecture": "toy",
                "task": "classify",
                "heads": (4,),
                "architecture_config": {"mask_mode": "diagonal"},
            }

    info = info_of(Config(), 10, precision="bf16")
    assert (info.architecture, info.task, info.heads, info.precision) == ("toy", "classify", (4,), "bf16")
    assert info.architecture_config == {"mask_mode": "diagonal"}
