"""Which pictures become which files."""

import os
from pathlib import Path

import pytest

from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.jobs.plan import plan_jobs


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "one.png",
        "two.JPG",
        "odd.jpe",
        "no_extension",
        "[x].png",
        "d/a.png",
        "d/b.tif",
        "d/notes.txt",
        "d/.hidden.png",
        "d/sub/c.webp",
        "d/sub/a.png",
        "d/.git/e.png",
        "d/sub.png/e.bmp",
    ):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(*inputs: str, out: str = "out", recursive: bool = False) -> dict[str, str]:
    return {str(job.source): str(job.target) for job in plan_jobs(list(inputs), out, recursive=recursive)}


@pytest.mark.parametrize(
    ("inputs", "out", "recursive", "wanted"),
    [
        (["one.png"], "out.jpg", False, {"one.png": "out.jpg"}),
        (["one.png"], "out", False, {"one.png": "out/one.png"}),
        (["one.png"], "a/b/", False, {"one.png": "a/b/one.png"}),
        (["one.png"], "out.png/", False, {"one.png": "out.png/one.png"}),
        (["one.png"], "d", False, {"one.png": "d/one.png"}),
        (["one.png"], "d/sub.png", False, {"one.png": "d/sub.png/one.png"}),
        (["two.JPG", "one.png"], "v1.5", False, {"two.JPG": "v1.5/two.JPG", "one.png": "v1.5/one.png"}),
        (["odd.jpe", "no_extension"], "out", False, {"odd.jpe": "out/odd.jpe", "no_extension": "out/no_extension.png"}),
        (["d"], "out", False, {"d/a.png": "out/a.png", "d/b.tif": "out/b.tif"}),
        (["d/sub"], "out", False, {"d/sub/a.png": "out/a.png", "d/sub/c.webp": "out/c.webp"}),
        (
            ["d"],
            "out",
            True,
            {
                "d/a.png": "out/a.png",
                "d/b.tif": "out/b.tif",
                "d/sub/a.png": "out/sub/a.png",
                "d/sub/c.webp": "out/sub/c.webp",
                "d/sub.png/e.bmp": "out/sub.png/e.bmp",
            },
        ),
        (["d/sub.png"], "out.png", False, {"d/sub.png/e.bmp": "out.png"}),
        (["*.png"], "out", False, {"[x].png": "out/[x].png", "one.png": "out/one.png"}),
        (["[x].png"], "out", False, {"[x].png": "out/[x].png"}),
        (["d/**/c.*"], "out", False, {"d/sub/c.webp": "out/c.webp"}),
        (["one.png", "./one.png", "o*.png"], "out.png", False, {"one.png": "out.png"}),
        (["d/.git"], "out", False, {"d/.git/e.png": "out/e.png"}),
        (["d/a.png", "d"], "out", False, {"d/a.png": "out/a.png", "d/b.tif": "out/b.tif"}),
    ],
)
def test_names(inputs: list[str], out: str, recursive: bool, wanted: dict[str, str]) -> None:
    assert names(*inputs, out=out, recursive=recursive) == wanted


def test_earlier_results_below_the_folder_are_no_pictures() -> None:
    Path("d/out").mkdir()
    Path("d/out/a.png").touch()
    assert "d/out/a.png" not in names("d", out="d/out", recursive=True)
    assert "d/out/a.png" in names("d", out="elsewhere", recursive=True)


def test_a_result_that_exists_is_an_error_of_one_job() -> None:
    Path("out").mkdir()
    Path("out/one.png").touch()
    first, second = plan_jobs(["one.png", "two.JPG"], "out")
    assert "out/one.png: exists already" in str(first.error)
    assert second.error is None
    assert all(job.error is None for job in plan_jobs(["one.png", "two.JPG"], "out", overwrite=True))


@pytest.mark.parametrize(
    ("inputs", "out", "error", "message"),
    [
        (["one.png", "nowhere.png"], "out", PictureError, "nowhere.png: there is no such file or folder"),
        (["no*where"], "out", PictureError, r"no\*where: no file matches this pattern"),
        (["one.png"], ".", UsageError, "one.png: the result would replace the input one.png"),
        (["one.png"], "", UsageError, "the output is empty"),
        (["one.png"], "out.txt", PictureError, "out.txt: cannot write '.txt' files"),
        (
            ["one.png", "two.JPG"],
            "out.png",
            UsageError,
            "out.png: is the name of one picture, but there are 2 to write",
        ),
        (["d"], "out.tif", UsageError, "out.tif: is the name of one picture"),
        (["one.png", "two.JPG"], "odd.jpe", UsageError, "odd.jpe: is the name of one picture"),
        (["one.png"], "no_extension", PictureError, "no_extension: cannot be a folder for the results"),
        (["one.png"], "odd.jpe/deep/er/", PictureError, "because .*odd.jpe is a file"),
        (["one.png"], "new/out.png", PictureError, "the folder 'new' does not exist"),
        (
            ["d/a.png", "d/sub/a.png"],
            "out",
            UsageError,
            "out/a.png: would be the result of both d/a.png and d/sub/a.png",
        ),
        (["no_extension", "d/a.png"], "./d/.", UsageError, "d/a.png: the result would replace the input d/a.png"),
    ],
)
def test_what_is_refused(inputs: list[str], out: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plan_jobs(inputs, out, overwrite=True)


def test_links() -> None:
    os.symlink("one.png", "link.png")
    os.symlink("nowhere", "dangling.png")
    assert names("link.png") == {"link.png": "out/link.png"}
    assert names("dangling.png") == {"dangling.png": "out/dangling.png"}
    with pytest.raises(UsageError, match=r"link\.png: the result would replace the input one\.png"):
        plan_jobs(["one.png"], "link.png", overwrite=True)
