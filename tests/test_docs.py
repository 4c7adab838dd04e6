"""README and pages: code runs, commands exist, links lead somewhere."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flashrib.runtime.artifacts.bundled import bundled_model
from flashrib.runtime.cli.parser import build_parser
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.quality.metrics import psnr
from tests.places import ROOT

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "BENCHMARKS.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("script", SCRIPTS, ids=["flashrib", "onnxruntime"])
def test_python_of_the_readme(script: str, tmp_path: Path) -> None:
    assert ("flashrib" in script) != ("onnxruntime" in script), "the second one needs nothing of flashrib"
    script = script.replace('"large.png"', repr(str(tmp_path / "large.png")))
    script = script.replace('"2x_SSTlight_fp32.onnx"', repr(str(bundled_model("x2"))))
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    high = read_picture(ROOT / "docs" / "pictures" / "demo_hr.png").pixels
    assert psnr(read_picture(tmp_path / "large.png").pixels, high, border=2) > 36


def test_commands_of_the_readme() -> None:
    commands = re.findall(r"^flashrib .*$", README, re.MULTILINE)
    assert len(commands) == 5
    parser = build_parser()
    for command in commands:
        parser.parse_args(command.partition("#")[0].split()[1:])


def test_extras_of_the_readme() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"`\.\[([\w-]+)\]`", README))
    assert named == set(declared) - {"dev"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    lost = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert lost == []
