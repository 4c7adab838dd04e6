"""Low-resolution pictures that are given in folders of their own: which belongs to which high-resolution one."""

from collections.abc import Sequence
from pathlib import Path

from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.pictures.folder import list_pictures


def find_partners(high: Sequence[str], low: Sequence[str], scale: int, recursive: bool) -> dict[Path, Path]:
    """Return the low-resolution picture of each high-resolution one: the same name below its folder, or NAMExSCALE as in DIV2K.

    Endings do not count.

    Args:
        high: folders of high-resolution pictures.
        low: folders of low-resolution pictures, one for each of `high`.
        scale: magnification.
        recursive: look into the folders below as well.

    Raises:
        UsageError: a folder is missing or empty, or a picture has no partner, or two.
    """
    partners: dict[Path, Path] = {}
    for high_folder, low_folder in zip(map(Path, high), map(Path, low), strict=True):
        try:
            highs, lows = (list_pictures(folder, recursive=recursive) for folder in (high_folder, low_folder))
        except PictureError as error:
            raise UsageError(str(error)) from error
        named: dict[Path, Path] = {}
        for path in lows:
            name = path.relative_to(low_folder).with_suffix("")
            if name in named:
                raise UsageError(
                    f"{path}: {named[name].name} has the same name: which one belongs to {high_folder / name}?"
                )
            named[name] = path
        lonely = []
        for path in highs:
            name = path.relative_to(high_folder).with_suffix("")
            found = named.get(name, named.get(name.with_name(f"{name.name}x{scale}")))
            if found is None:
                lonely.append(path)
            else:
                partners[path] = found
        if lonely:
            raise UsageError(
                f"{lonely[0]}: there is no low-resolution picture of this name in {low_folder}"
                + (f", nor for {len(lonely) - 1} others" if len(lonely) > 1 else "")
            )
    return partners
