"""The report of a comparison: its content, and in a browser its slider."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flashrib.runtime.errors import FlashribError
from flashrib.runtime.pictures.files import Picture, write_picture
from flashrib.runtime.quality.parity import verify
from flashrib.runtime.quality.parity_report import heat_map, render_report, short_names, write_report
from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise
from tests.runtime.quality.test_parity import write_changed

BROWSER = [f"--{name}" for name in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run")] + [
    f"--disable-{name}" for name in ("background-networking", "component-update", "sync")
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a passing and a failing artifact, a picture with its original, and names that are HTML."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "pictures").mkdir()
    high = noise(80, 96, 3)
    write_picture(folder / "pictures" / "<b>&_HR.png", Picture(high))
    write_picture(folder / "pictures" / "<b>&_LR.png", Picture(high[::2, ::2].copy()))
    reference = write_onnx(folder / "right.onnx")
    wrong = write_changed(folder / "wrong<i>.onnx", "Mul", 0.9)
    parity = verify(reference, [reference, wrong], pictures=folder / "pictures", most_shown=2)
    write_report(parity, folder / "report.html")
    return folder / "report.html"


def data(page: Path) -> Any:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def decoded(uri: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def test_nothing_is_requested_from_anywhere(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.findall(r"https?://|url\(|<link|@import|\bsrc=", text)
    assert "default-src 'none'" in text


def test_the_page_says_what_happened(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "1 of 2 failed" in text
    assert "differs by 1.00e-01 (max abs)" in text
    assert len(re.findall(r"sha256 [0-9a-f]{64}", text)) == 3
    assert len(re.findall(r'<th scope="row">', text)) == 2 + 2 * 10


def test_names_are_text(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "<b>" not in text
    assert "<i>." not in text
    assert "wrong&lt;i&gt;.onnx" in text
    assert data(page)[0]["name"] == "<b>&_LR.png"


def test_the_pictures_are_the_outputs(page: Path) -> None:
    picture, chart = data(page)
    assert chart["name"] == "chart"
    assert [left["name"] for left in picture["left"]] == ["bicubic", "reference", "original"]
    reference, original = (decoded(left["image"]) for left in picture["left"][1:])
    assert original.shape == reference.shape == (80, 96, 3)
    assert np.array_equal(reference[::2, ::2], original[::2, ::2])  # the model repeats pixels
    right, wrong = picture["right"]
    assert np.array_equal(decoded(right["image"]), reference)
    assert decoded(right["heat"]).max() <= 4  # equal: the darkest colour everywhere
    assert (right["most"], wrong["most"]) == ("0", "0.1")
    assert decoded(wrong["heat"]).max() > 200


def test_the_heat_map() -> None:
    reference = np.zeros((1, 3, 1, 4), np.float32)
    output = reference.copy()
    output[0, 1] = [[0, -0.25, 0.5, np.nan]]
    colours, most = heat_map(output, reference)
    assert most == 0.5
    assert colours[0].tolist()[0] == [0, 0, 4]
    assert colours[0].tolist()[2] == colours[0].tolist()[3] == [252, 255, 164]
    brightness = colours[0].astype(int).sum(axis=1)
    assert brightness[0] < brightness[1] < brightness[2]


def test_files_of_one_name_are_told_apart() -> None:
    assert short_names([Path("a/m.onnx"), Path("b/m.onnx"), Path("a/n.onnx")]) == ["a/m.onnx", "b/m.onnx", "n.onnx"]


def test_a_failed_write_leaves_nothing(page: Path, tmp_path: Path) -> None:
    parity = verify(page.parent / "right.onnx", [page.parent / "right.onnx"])
    assert "The pictures need" in render_report(parity)  # without pictures as well
    (tmp_path / "report.html").mkdir()
    with pytest.raises(FlashribError, match="cannot be written: "):
        write_report(parity, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="needs the package selenium: pip install 'flashrib[dev]'"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*BROWSER, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,1600"):
        options.add_argument(argument)
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def test_in_a_browser(page: Path, browser: Any) -> None:
    """The keys move the slider, and with it what is visible of the left picture; the choices change the pictures."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    def at(name: str) -> Any:
        return browser.find_element(By.ID, name)

    def clip() -> str:
        return str(at("before").value_of_css_property("clip-path"))

    def right_edge() -> float:
        """Share of the width that is clipped from the right of the left picture, in %."""
        match = re.fullmatch(r"inset\(0px (?:calc\()?([\d.]+)%(?: .*)?\)?.*\)", clip())
        assert match is not None, clip()
        return float(match[1])

    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    assert "failed" in browser.title
    assert browser.execute_script("return document.getElementById('after').naturalWidth") == 96
    middle = clip()
    slider = at("split")
    assert slider.accessible_name != ""
    slider.send_keys(Keys.ARROW_RIGHT * 20)
    moved = clip()
    assert moved != middle
    assert slider.get_attribute("value") == "70"
    assert right_edge() == pytest.approx(30)
    slider.send_keys(Keys.HOME)
    assert right_edge() == pytest.approx(100)
    slider.send_keys(Keys.END)
    assert right_edge() == pytest.approx(0)

    before = at("heat").get_attribute("src")
    Select(at("right")).select_by_index(1)
    assert at("heat").get_attribute("src") != before
    assert at("right-tag").text == "wrong<i>.onnx"
    Select(at("case")).select_by_visible_text("chart")
    assert browser.execute_script("return document.getElementById('after').naturalWidth") == 256
    assert [option.text for option in Select(at("left")).options] == ["bicubic", "reference"]

    browser.set_window_size(400, 800)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
