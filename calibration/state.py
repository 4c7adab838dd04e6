"""What an interrupted calibration has found out, in a file beside the output."""

import json
from pathlib import Path

from flashrib.calibration.sensitivity import Cost
from flashrib.runtime import schema
from flashrib.runtime.errors import FlashribError

# Of a line about a layer.
_SCHEMA = {
    "layer": schema.text(),
    "drop": schema.number(-1e6, 1e6),
    "error": schema.number(0, 1e12),
}


class State:
    """Costs of layers measured so far: one JSON line each, behind a first line that says of what.

    A file of another model, of other pictures or options is started again; a last line that was cut off is left out.
    """

    def __init__(self, output: Path, key: str) -> None:
        """Read what there is for the calibration `key` of the file `output`."""
        self.path = output.with_name(f".{output.name}.calibrating")
        self.costs: dict[str, Cost] = {}
        try:
            lines = self.path.read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        if lines[:1] == [json.dumps({"key": key})]:
            for line in lines[1:]:
                try:
                    entry = schema.parse_json(line)
                    schema.check(entry, _SCHEMA)
                    self.costs[entry["layer"]] = Cost(entry["drop"], entry["error"])
                except (ValueError, KeyError, TypeError, AttributeError):
                    break
        self._write([json.dumps({"key": key}), *(self._line(name, cost) for name, cost in self.costs.items())], "w")

    def add(self, name: str, cost: Cost) -> None:
        """Keep the cost of one more layer."""
        self._write([self._line(name, cost)], "a")

    def remove(self) -> None:
        """The calibration is complete."""
        self.path.unlink(missing_ok=True)

    def _write(self, lines: list[str], how: str) -> None:
        try:
            with self.path.open(how) as file:
                file.writelines(line + "\n" for line in lines)
        except OSError as error:
            raise FlashribError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    @staticmethod
    def _line(name: str, cost: Cost) -> str:
        return json.dumps({"layer": name, "drop": cost.drop, "error": cost.error})
