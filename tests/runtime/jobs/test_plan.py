"""Which pictures become which files."""

import os
from pathlib import Path

import pytest

from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.jobs import plan
from flashrib.runtime.jobs.plan import Naming, plan_jobs
from flashrib.runtime.pictures import folder


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
        (["one.png"], "new/deep/out.png", False, {"one.png": "new/deep/out.png"}),
        (["-"], "out", False, {"-": "out/stdin.png"}),
        (["one.png"], "-", False, {"one.png": "-"}),
        (["one.png"], "/dev/stdout", False, {"one.png": "/dev/stdout"}),
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


def test_results_may_go_above_the_folder_of_the_pictures() -> None:
    assert names("d", out=".") == {"d/a.png": "a.png", "d/b.tif": "b.tif"}


def test_results_beside_the_pictures_are_no_pictures_of_the_next_run() -> None:
    Path("d/a_x2.png").touch()
    notes: list[str] = []
    jobs = plan_jobs(["d"], "d", naming=Naming("_x2"), skip_existing=True, note=notes.append)
    assert [(str(job.source), job.skipped) for job in jobs] == [("d/a.png", True), ("d/b.tif", False)]
    assert notes == ["passed over, since they are named as results of the others: 1 of 3 pictures"]
    with pytest.raises(UsageError, match=r"the result would replace the input d/a_x2\.png"):
        plan_jobs(["d"], "d", naming=Naming("_x2"), overwrite=True)


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
        (["one.png", "d"], "-", UsageError, "-: takes one picture, but there are 3"),
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


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("nowhere.png", "there is no such file or folder"),
        ("no*where", "no file matches this pattern"),
        ("one.png/below", "there is no such file or folder"),
        ("zero\0byte", "cannot be a file name"),
        ("empty", "no pictures in this folder"),
        ("loop.png", "the link leads"),
    ],
)
def test_one_missing_input_does_not_stop_the_others(missing: str, message: str) -> None:
    Path("empty").mkdir()
    Path("loop.png").symlink_to("loop.png")
    jobs = plan_jobs(["one.png", missing, "two.JPG"], "out")
    if missing == "loop.png":  # it is there; reading says what is wrong
        assert [job.error for job in jobs] == [None, None, None]
        return
    assert [str(job.source) for job in jobs] == ["one.png", "two.JPG", missing]
    assert [job.error is None for job in jobs] == [True, True, False]
    assert message in str(jobs[2].error)


def test_what_a_folder_passes_over_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("d/x.heic", "d/sub/y.psd", "d/.z.heic"):
        Path(name).touch()
    os.mkfifo("d/pipe.png")
    Path("d/broken.jpg").symlink_to("nowhere")
    Path("d/loop.jpg").symlink_to("loop.jpg")
    Path("d/linked").symlink_to("sub")
    Path("d/locked").mkdir()
    listdir = os.listdir

    def some(path: Path) -> list[str]:
        if path == Path("d/locked"):  # root may read every folder
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(folder.os, "listdir", some)
    notes: list[str] = []
    jobs = plan_jobs(["d"], "out", recursive=True, note=notes.append)
    assert sorted(str(job.error) for job in jobs if job.error) == [
        "d/broken.jpg: the link leads nowhere",
        "d/locked: the folder cannot be read: Permission denied",
        "d/loop.jpg: the link leads nowhere",
    ]
    assert notes == [
        "d/linked: links to folders are not followed; name it to take its pictures",
        "d/pipe.png: passed over, since it is not a regular file",
        "d: passed over, since such files are not read: sub/y.psd, x.heic",
    ]


@pytest.mark.parametrize(
    ("naming", "wanted"),
    [
        (Naming(), ["out/a.png", "out/e.png", "out/f.jfif", "out/g.png", "out/m.jpg"]),
        (Naming("_x2"), ["out/a_x2.png", "out/e_x2.png", "out/f_x2.jfif", "out/g_x2.png", "out/m_x2.jpg"]),
        (Naming("", ".webp"), [f"out/{name}.webp" for name in "aefgm"]),
    ],
)
def test_names_in_a_folder(naming: Naming, wanted: list[str]) -> None:
    Path("e").mkdir()
    for name in ("a.png", "e.apng", "f.jfif", "g.gif", "m.mpo"):
        Path("e", name).touch()
    assert [str(job.target) for job in plan_jobs(["e"], "out", naming=naming)] == wanted
    with pytest.raises(UsageError, match="--suffix and --format name results in a folder"):
        plan_jobs(["one.png"], "out.png", naming=Naming("_x2"))


def test_results_that_exist_are_skipped_where_that_is_asked_for() -> None:
    Path("out").mkdir()
    Path("out/one.png").touch()
    first, second = plan_jobs(["one.png", "two.JPG"], "out", skip_existing=True)
    assert (first.skipped, first.error, second.skipped) == (True, None, False)


def test_a_folder_that_must_not_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    lstat = os.lstat

    def denied(path: str) -> os.stat_result:
        if path == "secret/one.png":  # root may enter every folder
            raise PermissionError(13, "Permission denied")
        return lstat(path)

    monkeypatch.setattr(plan.os, "lstat", denied)
    (job,) = plan_jobs(["secret/one.png"], "out")
    assert str(job.error) == "secret/one.png: cannot be reached: Permission denied"


def test_links() -> None:
    os.symlink("one.png", "link.png")
    os.symlink("nowhere", "dangling.png")
    assert names("link.png") == {"link.png": "out/link.png"}
    assert names("dangling.png") == {"dangling.png": "out/dangling.png"}
    with pytest.raises(UsageError, match=r"link\.png: the result would replace the input one\.png"):
        plan_jobs(["one.png"], "link.png", overwrite=True)
