"""What commands print: text, tables, JSON, errors, and a bar with the time left."""

import json
import sys
from typing import Any

from tqdm import tqdm


def print_line(text: str) -> None:
    """Print to standard output, above the bar if there is one; characters that it cannot show are escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stdout)


def print_json(value: Any) -> None:
    """Print one JSON document, in ASCII."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_error(error: object, kind: str = "error") -> None:
    """Print an error, or something of another kind, to standard error, in one line whatever it holds."""
    text = " ".join(str(error).splitlines())
    tqdm.write(f"flashrib: {kind}: {text}", file=sys.stderr)


def print_note(note: object) -> None:
    """Print what the user should know although nothing failed to standard error, in one line."""
    text = " ".join(str(note).splitlines())
    tqdm.write(f"flashrib: note: {text}", file=sys.stderr)


def print_table(rows: list[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print_line(f"{name:<{width}}  {value}")


class PictureBar:
    """A bar over several pictures with the time left, on a terminal; nothing where standard error is none."""

    def __init__(self, pictures: int) -> None:
        layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} < {remaining}"
        self._bar = tqdm(total=pictures, disable=None, leave=False, bar_format=layout, file=sys.stderr)
        self._finished = 0

    def start(self, name: str) -> None:
        """Say which picture is next."""
        self._bar.set_description_str(name)

    def report(self, done: int, total: int) -> None:
        """Take what `upscale_picture` reports about the current picture."""
        self._bar.n = self._finished + done / total
        self._bar.refresh()

    def finish(self) -> None:
        """Count the current picture, upscaled or not."""
        self._finished += 1
        self.report(0, 1)

    def __enter__(self) -> "PictureBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class BuildBar:
    """A bar over one long build with its current phase, on a terminal; nothing where standard error is none."""

    def __init__(self) -> None:
        layout = "{percentage:3.0f}%|{bar}| {elapsed} < {remaining} {desc}"
        self._bar = tqdm(total=1.0, disable=None, leave=False, bar_format=layout, file=sys.stderr)

    def report(self, fraction: float, phase: str) -> None:
        """Show what a builder reports."""
        self._bar.set_description_str(phase, refresh=False)
        self._bar.n = fraction
        self._bar.refresh()

    def __enter__(self) -> "BuildBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
