"""Which pictures are upscaled into which files: everything that can be refused before any work is done."""

import dataclasses
import glob
import os
import stat
from collections.abc import Callable
from pathlib import Path

from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.pictures.files import check_output
from flashrib.runtime.pictures.folder import survey
from flashrib.runtime.pictures.formats import SUFFIXES, format_of, written_format

STREAM = "-"
"""Standard input or output, as a name."""

_DESCRIPTORS = ("/dev/stdout", "/dev/stdin", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture.

    Attributes:
        source: the file to read, or `STREAM`.
        target: the file to write, or `STREAM`; its folder may not exist yet.
        error: why it will not be done, or None.
        skipped: the result exists, and such pictures are left alone.
    """

    source: Path
    target: Path
    error: PictureError | None = None
    skipped: bool = False


@dataclasses.dataclass(frozen=True)
class Naming:
    """How results are named in a folder.

    Attributes:
        suffix: put behind the name, such as "_x2".
        extension: of the format of all results, such as ".png"; None: that of the picture, where it is written.
    """

    suffix: str = ""
    extension: str | None = None

    def of(self, relative: Path) -> Path:
        """Return the name of a picture's result."""
        extension = self.extension or (relative.suffix if written_format(relative) else _usual(relative))
        return relative.with_name(relative.stem + self.suffix + extension)


def plan_jobs(
    inputs: list[str],
    output: str,
    *,
    recursive: bool = False,
    overwrite: bool = False,
    skip_existing: bool = False,
    naming: Naming = Naming(),
    note: Callable[[str], None] = lambda _: None,
) -> list[Job]:
    """Find the pictures and name the results.

    A picture from a folder, or from below it with `recursive`, keeps its path relative to this folder. A result keeps the name of
    its picture; an extension that is not written becomes that of the format, or .png. An input that does not exist or holds no
    pictures, and a result that exists and may not be overwritten, are errors of one job, so that the others are done.

    Args:
        inputs: files, folders, patterns for shells that do not expand them, and "-" for standard input.
        output: a file for a single picture, if it has the extension of one; "-" for standard output; otherwise a folder. Folders
            that do not exist will be made.
        recursive: take the pictures below folders as well.
        overwrite: results may replace files.
        skip_existing: leave pictures alone whose result exists.
        naming: how results are named in a folder.
        note: called with what was passed over in folders, for the user to read.

    Raises:
        PictureError: the output cannot be written.
        UsageError: inputs and output do not belong together; two pictures would become the same file, or one of the inputs.
    """
    if not output:
        raise UsageError("the output is empty: -o needs the name of a file or a folder")
    into_stream = is_stream(output)
    into_folder = not into_stream and (output.endswith(("/", os.sep)) or Path(output).is_dir())
    found, missing = _find(inputs, recursive, Path(output) if into_folder else None, note)
    if into_stream or (not into_folder and _is_file_name(output, found, missing, inputs)):
        if len(found) + len(missing) > 1:
            raise UsageError(f"{output}: takes one picture, but there are {len(found)} to write: give a folder")
        if into_stream:
            return [*(Job(source, Path(output)) for source, _ in found), *_lost(missing, Path(output))]
        if naming != Naming():
            raise UsageError(
                f"{output}: --suffix and --format name results in a folder, and this is the name of a file"
            )
        _check_folder(Path(output).parent)
        if not written_format(output):
            check_output(output, overwrite=True)  # says which names are right
        targets = [Path(output) for _ in found]
    else:
        targets = [Path(output, naming.of(relative)) for _, relative in found]
        if naming.suffix and not overwrite:
            found, targets = _without_results(found, targets, note)
        _check_folder(Path(output))
    sources = [source for source, _ in found]
    _check_collisions(sources, targets)
    jobs = [_job(source, target, overwrite, skip_existing) for source, target in zip(sources, targets, strict=True)]
    return jobs + _lost(missing, Path(output))


def is_stream(output: str) -> bool:
    """Whether results go into a pipe, a device or a descriptor rather than into a file."""
    if output == STREAM or output.startswith(_DESCRIPTORS):
        return True
    try:
        mode = os.stat(output).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _usual(relative: Path) -> str:
    row = format_of(relative)
    return row.suffixes[0] if row and row.encode else ".png"


def _job(source: Path, target: Path, overwrite: bool, skip_existing: bool) -> Job:
    if skip_existing and target.exists():
        return Job(source, target, skipped=True)
    return Job(source, target, _refusal(target, overwrite))


def _lost(missing: list[tuple[Path, str]], output: Path) -> list[Job]:
    return [Job(path, output, PictureError(f"{path}: {reason}")) for path, reason in missing]


def _find(
    inputs: list[str], recursive: bool, output: Path | None, note: Callable[[str], None]
) -> tuple[list[tuple[Path, Path]], list[tuple[Path, str]]]:
    """All pictures, each once, as (path, path relative to the input that it was found in), and (path, why) of what cannot be read."""
    found: dict[str, tuple[Path, Path]] = {}
    missing: list[tuple[Path, str]] = []
    for text in inputs:
        if text == STREAM:
            found.setdefault(STREAM, (Path(STREAM), Path("stdin")))
            continue
        problem = _problem(text)
        matches = [text] if problem is None else sorted(glob.glob(text, recursive=True)) if "\0" not in text else []
        if not matches:
            missing.append((Path(text), problem or ""))
        for match in map(Path, matches):
            if not match.is_dir():
                found.setdefault(os.path.abspath(match), (match, Path(match.name)))
                continue
            try:
                listing = survey(match, recursive=recursive, besides=output)
            except PictureError as error:
                missing.append((match, str(error).removeprefix(f"{match}: ")))
                continue
            missing += listing.unreadable
            for line in listing.notes:
                note(line)
            if not listing.pictures and not listing.unreadable:
                below = "" if recursive else "; -r looks into its folders as well"
                missing.append((match, f"no pictures in this folder ({', '.join(SUFFIXES)}){below}"))
            for file in listing.pictures:
                found.setdefault(os.path.abspath(file), (file, file.relative_to(match)))
    return list(found.values()), missing


def _problem(text: str) -> str | None:
    """Why there is nothing of this name, or None where there is something."""
    try:
        os.lstat(text)
    except (FileNotFoundError, NotADirectoryError):
        return "no file matches this pattern" if glob.has_magic(text) else "there is no such file or folder"
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"
    except ValueError as error:
        return f"cannot be a file name: {error}"
    return None


def _is_file_name(
    output: str, found: list[tuple[Path, Path]], missing: list[tuple[Path, str]], inputs: list[str]
) -> bool:
    """Whether `output`, which is no folder, is meant as a file.

    Raises:
        UsageError: as a file for several pictures.
    """
    named = format_of(output) is not None
    count = len(found) + len(missing)
    if count > 1 and named:
        raise UsageError(f"{output}: is the name of one picture, but there are {count} to write: give a folder")
    # For one given file any extension is meant as such: x.gif is a mistake and not a folder.
    return named or (bool(Path(output).suffix) and len(inputs) == 1 and not Path(inputs[0]).is_dir() and count == 1)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that can neither be written to nor be made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise PictureError(f"{folder}: cannot be a folder for the results, because {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PictureError(f"{folder}: cannot be written to: no permission for {existing}")


def _without_results(
    found: list[tuple[Path, Path]], targets: list[Path], note: Callable[[str], None]
) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Leave out what an earlier run with the same suffix wrote beside the pictures."""
    results = {os.path.realpath(target) for target in targets}
    kept = [
        (picture, target)
        for picture, target in zip(found, targets, strict=True)
        if os.path.realpath(picture[0]) not in results
    ]
    if left_out := len(found) - len(kept):
        note(f"passed over, since they are named as results of the others: {left_out} of {len(found)} pictures")
    return [picture for picture, _ in kept], [target for _, target in kept]


def _check_collisions(sources: list[Path], targets: list[Path]) -> None:
    """Refuse two results of the same name, and a result that replaces an input."""
    inputs = {os.path.realpath(path): path for path in sources if str(path) != STREAM}
    written: dict[str, Path] = {}
    for source, target in zip(sources, targets, strict=True):
        place = os.path.realpath(target)
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
