"""The pictures in a folder."""

from pathlib import Path

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.formats import SUFFIXES


def list_pictures(folder: Path, *, recursive: bool = False, besides: Path | None = None) -> list[Path]:
    """Return the files in a folder that are named like pictures, sorted; hidden ones are left out.

    Args:
        folder: where to look.
        recursive: look into the folders below as well, but for hidden ones.
        besides: a folder whose files are left out, such as that of earlier results.

    Raises:
        PictureError: the folder is missing, cannot be read, or has no pictures.
    """
    left_out = besides.resolve() if besides and besides.resolve() != folder.resolve() else None
    try:
        paths = sorted(folder.rglob("*") if recursive else folder.iterdir())
        pictures = [
            path
            for path in paths
            if path.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
            and path.is_file()
            and not (left_out and path.resolve().is_relative_to(left_out))
        ]
    except OSError as error:
        raise PictureError(f"{folder}: cannot be read as a folder of pictures: {error.strerror or error}") from error
    if not pictures:
        below = "" if recursive else "; its folders are not looked into"
        raise PictureError(f"{folder}: no pictures in this folder ({', '.join(SUFFIXES)}){below}")
    return pictures
