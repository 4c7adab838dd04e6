"""The folder beside a video that is being written: what a kill leaves of it goes later, what others put there never."""

import os
from pathlib import Path

import pytest

from flashrib.runtime.errors import FlashribError
from flashrib.runtime.jobs.parts import Parts

WRITTEN = 6  # five files, and their folder
KILLED = KeyboardInterrupt  # what no code here catches


def filled(folder: Path) -> Parts:
    """A folder with segments, whose result is whole."""
    parts = Parts(folder / "out.mkv")
    with parts.held():
        parts.begin("one")
        for number in range(2):
            parts.segment(number).write_bytes(b"segment")
        parts.segment(1).with_suffix(".tmp").touch()
    parts.target.write_bytes(b"whole")
    return parts


@pytest.mark.parametrize("moment", range(WRITTEN))
def test_killed_while_it_goes(moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each moment: what is left is recognised, and goes when the result is asked for again."""
    parts = filled(tmp_path)
    left = moment

    def stops(one: Path, missing_ok: bool = False) -> None:
        nonlocal left
        if left == 0:
            raise KILLED
        left -= one.exists()
        if one.exists() or not missing_ok:
            os.unlink(one)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", stops)
        patched.setattr(Path, "rmdir", stops)
        with pytest.raises(KILLED), parts.held():
            parts.remove()
    assert parts.folder.is_dir()
    parts.remove_finished()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_work_on_a_new_result_stays(tmp_path: Path) -> None:
    """The result that exists is older than the segments, which an --overwrite made that was killed."""
    parts = filled(tmp_path)
    os.utime(parts.target, (0, 0))
    parts.remove_finished()
    assert parts.segment(1).is_file()


def test_while_another_works_nothing_goes(tmp_path: Path) -> None:
    parts = filled(tmp_path)
    with parts.held():
        parts.remove_finished()
        assert parts.segment(1).is_file()
        with pytest.raises(FlashribError, match="being written by another process"), Parts(parts.target).held():
            pass
    assert parts.segment(1).is_file()


def test_files_of_the_user_stay(tmp_path: Path) -> None:
    parts = filled(tmp_path)
    (parts.folder / "notes.txt").touch()
    (parts.folder / "cut").mkdir()
    with parts.held():
        parts.begin("another work")
        assert not parts.segment(0).exists()
        parts.remove()
    assert sorted(path.name for path in parts.folder.iterdir()) == ["cut", "lock", "notes.txt"]
    parts.remove_finished()
    assert (parts.folder / "notes.txt").is_file()


def test_the_same_work_goes_on(tmp_path: Path) -> None:
    parts = filled(tmp_path)
    with parts.held():
        parts.begin("one")
    assert parts.segment(0).is_file()


def test_without_a_folder(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "out.mkv")
    parts.target.touch()
    parts.remove_finished()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]
    (tmp_path / "out.mkv.parts").touch()
    with pytest.raises(FlashribError, match="cannot be made"), parts.held():
        pass
