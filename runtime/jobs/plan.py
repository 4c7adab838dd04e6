"""Which pictures are upscaled into which files: everything that can be refused before any work is done."""

import dataclasses
import glob
import os
from pathlib import Path

from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.pictures.files import check_output
from flashrib.runtime.pictures.folder import list_pictures
from flashrib.runtime.pictures.formats import format_of


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture.

    Attributes:
        source: the file to read.
        target: the file to write; its folder may not exist yet.
        error: why it will not be done, or None.
    """

    source: Path
    target: Path
    error: PictureError | None


def plan_jobs(inputs: list[str], output: str, *, recursive: bool = False, overwrite: bool = False) -> list[Job]:
    """Find the pictures and name the results.

    A picture from a folder, or from below it with `recursive`, keeps its path relative to this folder. A result keeps the name of
    its picture; an extension that is that of no format becomes .png. A result that exists and may not be overwritten is
    an error of this one job, so that an interrupted batch can be taken up again.

    Args:
        inputs: files, folders, and patterns for shells that do not expand them.
        output: a file for a single picture, if it has the extension of one; otherwise a folder, which may not exist yet.
        recursive: take the pictures below folders as well.
        overwrite: results may replace files.

    Raises:
        PictureError: an input does not exist or holds no pictures, or the output cannot be written.
        UsageError: inputs and output do not belong together; two pictures would become the same file, or one of the inputs.
    """
    if not output:
        raise UsageError("the output is empty: -o needs the name of a file or a folder")
    into_folder = output.endswith(("/", os.sep)) or Path(output).is_dir()
    found = _find(inputs, recursive, Path(output) if into_folder else None)
    if not into_folder and _is_file_name(output, found, inputs):
        targets = [Path(output)]
        check_output(targets[0], overwrite=True)
    else:
        targets = [Path(output, _result_name(relative)) for _, relative in found]
        _check_folder(Path(output))
    sources = [source for source, _ in found]
    _check_collisions(sources, targets)
    return [Job(source, target, _refusal(target, overwrite)) for source, target in zip(sources, targets, strict=True)]


def _find(inputs: list[str], recursive: bool, output: Path | None) -> list[tuple[Path, Path]]:
    """All pictures, each once, as (path, path relative to the input that it was found in)."""
    found: dict[str, tuple[Path, Path]] = {}
    for text in inputs:
        matches = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))
        if not matches:
            pattern = glob.has_magic(text)
            raise PictureError(
                f"{text}: " + ("no file matches this pattern" if pattern else "there is no such file or folder")
            )
        for match in map(Path, matches):
            files = list_pictures(match, recursive=recursive, besides=output) if match.is_dir() else [match]
            for file in files:
                relative = file.relative_to(match) if match.is_dir() else Path(file.name)
                found.setdefault(os.path.abspath(file), (file, relative))
    return list(found.values())


def _is_file_name(output: str, found: list[tuple[Path, Path]], inputs: list[str]) -> bool:
    """Whether `output`, which is no folder, is meant as a file.

    Raises:
        UsageError: as a file for several pictures.
    """
    named = format_of(output) is not None
    if len(found) > 1 and named:
        raise UsageError(f"{output}: is the name of one picture, but there are {len(found)} to write: give a folder")
    # For one given file any extension is meant as such: x.gif is a mistake and not a folder.
    return named or (bool(Path(output).suffix) and len(inputs) == 1 and Path(inputs[0]).is_file())


def _result_name(relative: Path) -> Path:
    return relative if format_of(relative) else relative.with_suffix(".png")


def _check_folder(folder: Path) -> None:
    """Refuse a folder that can neither be written to nor be made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise PictureError(f"{folder}: cannot be a folder for the results, because {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PictureError(f"{folder}: cannot be written to: no permission for {existing}")


def _check_collisions(sources: list[Path], targets: list[Path]) -> None:
    """Refuse two results of the same name, and a result that replaces an input."""
    inputs = {path.resolve(): path for path in sources}
    written: dict[Path, Path] = {}
    for source, target in zip(sources, targets, strict=True):
        place = target.resolve()
        if place in inputs:
            raise UsageError(f"{target}: the result would replace the input {inputs[place]}: choose another output")
        if place in written:
            raise UsageError(
                f"{target}: would be the result of both {written[place]} and {source}: upscale them into two folders"
            )
        written[place] = source


def _refusal(target: Path, overwrite: bool) -> PictureError | None:
    """Why this file cannot be written, as far as can be told now; a missing folder will be made."""
    if not target.parent.exists():
        return None
    try:
        check_output(target, overwrite=overwrite)
    except PictureError as error:
        return error
    return None
