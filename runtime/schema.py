"""Types and ranges of what files say: a schema is a rule per field, and `check` applies it. Imports nothing, like errors.py."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SHOWN = 80  # characters of a bad value in a message
_MOST_ITEMS = 10_000
_DEEPEST = 20  # JSON within JSON


@dataclass(frozen=True)
class Rule:
    """What a value must be: `words` say it after "must be", `holds` decides."""

    words: str
    holds: Callable[[Any], bool]


def check(values: Mapping[str, Any], schema: Mapping[str, Rule]) -> None:
    """Check the values that are there; which of them must be there is for the caller to say.

    Raises:
        ValueError: a value breaks the rule of its name, or has no rule.
    """
    for name, value in values.items():
        if name not in schema:
            raise ValueError(f"{name!r} is unknown: a later version of flashrib wrote it, or another program")
        rule = schema[name]
        if not rule.holds(value):
            raise ValueError(f"{name} is {shown(value)}, but it must be {rule.words}")


def shown(value: Any) -> str:
    """A value as a message shows it: in one line, printable, and not longer than it must be."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def read_text(path: Path, most: int = 1_000_000) -> str:
    """Read a small text file; anything else that has a name, such as a pipe, could keep whoever reads it waiting for ever.

    Raises:
        OSError, ValueError: it cannot be read, is no regular file, larger than `most` bytes, or no UTF-8.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes")
    return content.decode()


def parse_json(text: str) -> Any:
    """Read a JSON document.

    Raises:
        ValueError: it is none, is nested deeper than any of ours, or holds NaN or infinity, which JSON has not.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if _depth(value) > _DEEPEST:
        raise ValueError("it is nested too deeply")
    return value


def whole(least: int, most: int) -> Rule:
    """A whole number in a range, both ends included."""
    return Rule(
        f"a whole number from {least} to {most}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
    )


def number(least: float, most: float) -> Rule:
    """A number in a range, both ends included."""
    return Rule(
        f"a number from {least:g} to {most:g}",
        lambda value: (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and least <= value <= most
            and math.isfinite(value)
        ),
    )


def text(pattern: str = r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*", words: str = "a line of text", most: int = 500) -> Rule:
    """A text that a pattern matches, by default one line without control characters."""
    compiled = re.compile(pattern)
    return Rule(words, lambda value: isinstance(value, str) and len(value) <= most and bool(compiled.fullmatch(value)))


def one_of(*values: Any) -> Rule:
    """One of some values, of the same type."""
    words = ", ".join(map(str, values[:-1])) + (" or " if len(values) > 1 else "") + str(values[-1])
    return Rule(words, lambda value: any(type(value) is type(one) and value == one for one in values))


def several(rule: Rule, least: int = 0, most: int = _MOST_ITEMS) -> Rule:
    """A list of values that keep a rule."""
    count = f"{least}" if least == most else f"{least} to {most}"
    return Rule(
        f"a list of {count} values, each {rule.words}",
        lambda value: isinstance(value, list | tuple) and least <= len(value) <= most and all(map(rule.holds, value)),
    )


def optional(rule: Rule) -> Rule:
    """None, or what keeps a rule."""
    return Rule(f"nothing, or {rule.words}", lambda value: value is None or rule.holds(value))


BOOLEAN = Rule("true or false", lambda value: isinstance(value, bool))
OBJECT = Rule("an object with names", lambda value: isinstance(value, dict) and all(isinstance(n, str) for n in value))
SHA256 = text(r"[0-9a-f]{64}", "64 hexadecimal digits")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _depth(value: Any) -> int:
    deepest, layer = 0, [value]
    while layer and deepest <= _DEEPEST:
        deepest += 1
        inner = [v for v in layer if isinstance(v, dict | list)]
        layer = [item for v in inner for item in (v.values() if isinstance(v, dict) else v)]
    return deepest
