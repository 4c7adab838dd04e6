"""docs/cli.md is what the program says."""

import re
from pathlib import Path

from docs.make_cli import render

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def normalised(text: str) -> list[str]:
    """The words; Python 3.13 writes "-o, --output OUT" where older ones write "-o OUT, --output OUT"."""
    return re.sub(r"(-\w) (\S+), (--\S+) \2", r"\1, \3 \2", text).split()


def test_the_page_is_the_help() -> None:
    assert normalised(PAGE.read_text()) == normalised(render()), "run: python docs/make_cli.py > docs/cli.md"


def test_the_page_has_every_command_and_exit_code() -> None:
    page = PAGE.read_text()
    for title in ("flashrib", "flashrib upscale", "flashrib info", "flashrib evaluate", "flashrib train"):
        assert f"\n## {title}\n" in page
    assert re.findall(r"^  (\d+) ", page, re.MULTILINE) == ["0", "1", "2", "130", "141"]
