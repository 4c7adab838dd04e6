"""Files appear whole, with the mode of before, or not at all."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flashrib.runtime.artifacts.files import replacing, sha256_of, write_whole
from flashrib.runtime.errors import CheckpointError, FlashribError, ModelError


def write_half(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert sorted(path.parent.iterdir()) == sorted([path, temporary])
        raise error


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_mode_is_that_of_the_umask_or_of_the_old_file(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "new", b"1")
        (tmp_path / "old").write_bytes(b"0")
        (tmp_path / "old").chmod(0o640)
        write_whole(tmp_path / "old", b"1")
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == 0o666 & ~mask
    assert mode(tmp_path / "old") == 0o640


def test_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"0")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    write_whole(tmp_path / "link", b"1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_bytes() == b"1"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_breaks_off_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(error):
        write_half(tmp_path / "file", error)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    write_whole(tmp_path / ("n" * 255), b"1")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_what_cannot_be_written_or_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(FlashribError, match="file: cannot be written: No such file or directory"):
        write_whole(tmp_path / "no" / "file", b"")
    with pytest.raises(CheckpointError, match="cannot be written: Is a directory"):
        write_whole(tmp_path, b"", CheckpointError)
    with pytest.raises(ModelError, match="gone: cannot be read: No such file"):
        sha256_of(tmp_path / "gone")


def test_folders_that_killed_processes_left_are_removed(tmp_path: Path) -> None:
    code = "import sys, os; from pathlib import Path; from flashrib.runtime.artifacts.files import staging_folder"
    code += "\nwith staging_folder(Path(sys.argv[1])) as folder:\n    (folder / 'm.onnx').touch(); print(flush=True); "
    with subprocess.Popen(
        [sys.executable, "-c", code + "input()", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        subprocess.run([sys.executable, "-c", code + "os._exit(9)", str(tmp_path)], stdout=subprocess.PIPE)
        assert len(list(tmp_path.iterdir())) == 2
        write_whole(tmp_path / "a.bin", b"content")
        # One is still at work.
        assert len(list(tmp_path.iterdir())) == 2
        process.communicate("\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".flashrib-0123456789abcdef.part").write_bytes(b"left by a process that was killed")
    (tmp_path / ".flashrib-fedcba9876543210.part").mkdir()  # by one that was killed while it removed the folder
    (tmp_path / "notes.part").touch()
    code = "import sys, time; from flashrib.runtime.artifacts.files import replacing"
    code += "\nwith replacing(sys.argv[1]) as path:\n    path.write_bytes(b'new'); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path / "slow.bin")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        write_whole(tmp_path / "a.bin", b"content")
        parts = sorted(path.name for path in tmp_path.iterdir())
        process.communicate("go on\n")
    assert [name for name in parts if name.endswith(".part")] == [*[n for n in parts if ".flashrib" in n], "notes.part"]
    assert not {".flashrib-0123456789abcdef.part", ".flashrib-fedcba9876543210.part"} & set(parts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "notes.part", "slow.bin"]
    assert (tmp_path / "slow.bin").read_bytes() == b"new"
