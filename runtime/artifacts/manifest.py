"""What manifests have in common: `<artifact>.json` beside an artifact of machine code, with the hash that proves what it describes."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from flashrib.runtime import schema
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import ModelError

M = TypeVar("M")

_MOST_BYTES = 10_000_000  # of a manifest; ours have some thousand


def manifest_path(artifact: str | os.PathLike[str]) -> Path:
    """Return where the manifest of an artifact lies."""
    return Path(f"{os.fspath(artifact)}.json")


def read_manifest_file(
    artifact: str | os.PathLike[str], kind: str, command: str, version: int, make: Callable[..., M]
) -> M:
    """Read the manifest of an artifact.

    Args:
        artifact: the file that it lies beside.
        kind: what the artifact is called in messages, "engine".
        command: what builds one.
        version: of the manifest's format.
        make: takes the manifest's values by name, lists as tuples, `model` as a `ModelInfo`; raises ValueError where one is nonsense.

    Raises:
        ModelError: there is none, or it is malformed.
    """
    path = manifest_path(artifact)
    try:
        text = schema.read_text(path, _MOST_BYTES)
    except FileNotFoundError as error:
        raise ModelError(
            f"{artifact}: its manifest {path.name} is missing, so nothing says what this {kind} is: copy it along, or build the"
            f" {kind} with {command}"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        values = schema.parse_json(text)
        if not isinstance(values, dict) or "format" not in values or "model" not in values:
            raise ValueError("it says neither its format nor its model")
        if values.pop("format") != version:
            raise ValueError("its format is of another version of flashrib")
        model = ModelInfo.from_json(values.pop("model"))
        return make(**_tuples(values), model=model)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: not a manifest of flashrib: {error}: build the {kind} again") from error


def checked(values: Mapping[str, Any], rules: Mapping[str, schema.Rule]) -> Mapping[str, Any]:
    """Return the values of a manifest, `model` aside, where there is one for each rule that keeps it.

    Raises:
        ValueError: one is missing, unknown, or breaks its rule.
    """
    if missing := [name for name in rules if name not in values]:
        raise ValueError(f"{missing[0]!r} is missing")
    schema.check({name: value for name, value in values.items() if name != "model"}, rules)
    return values


class Manifest:
    """What manifests, dataclasses with a field `model`, have in common."""

    FORMAT: ClassVar[int]
    model: ModelInfo

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in JSON's types."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # of a class below, which is a dataclass
        return {field.name: getattr(self, field.name) for field in fields} | {"model": self.model.to_json()}

    def to_json(self) -> str:
        """Return the text of the manifest file."""
        return json.dumps({"format": self.FORMAT, **self.to_dict()}, indent=2) + "\n"


def read_proven(artifact: str | os.PathLike[str], kind: str, sha256: str) -> bytes:
    """Return the content of an artifact, proven to be what its manifest describes.

    Args:
        artifact: the file.
        kind: what it is called in messages, "engine".
        sha256: the hash that its manifest holds.

    Raises:
        ModelError: it cannot be read, or was changed after it was built.
    """
    try:
        content = Path(artifact).read_bytes()
    except OSError as error:
        raise ModelError(f"{artifact}: cannot be read: {error.strerror or error}") from error
    seen = hashlib.sha256(content).hexdigest()
    if seen != sha256:
        raise ModelError(
            f"{artifact}: is not the {kind} that its manifest describes (sha256 {seen[:12]}..., not {sha256[:12]}...): it is"
            " damaged or was replaced; build it again"
        )
    return content


def _tuples(value: Any) -> Any:
    """Turn JSON's lists into tuples, at every depth."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
