"""Which of the pictures in a file is read, where there are several: no picture is lost silently."""

from PIL import ImageFile

from flashrib.runtime.errors import PictureError

NEW_SUBFILE_TYPE, SUB_IFDS = 254, 330
REDUCED_OR_MASK = 0b101


def only_frame(image: ImageFile.ImageFile) -> int:
    """Return 0, the frame of a file that is not animated.

    Raises:
        PictureError: there are several.
    """
    frames = getattr(image, "n_frames", 1)
    # A phone's JPEG carries depth or gain maps as further pictures ("MPO"); the first is the photograph.
    if frames > 1 and image.format != "MPO":
        raise PictureError(f"is an animation of {frames} frames; extract the frames first")
    return 0


def only_page(image: ImageFile.ImageFile) -> int:
    """Return the only page of a TIFF that is neither a thumbnail nor a mask.

    Raises:
        PictureError: there are several such pages, or only a preview.
    """
    full = []
    for page in range(getattr(image, "n_frames", 1)):
        image.seek(page)
        tags = getattr(image, "tag_v2", {})
        if not tags.get(NEW_SUBFILE_TYPE, 0) & REDUCED_OR_MASK:
            full.append(page)
        elif SUB_IFDS in tags:
            raise PictureError("holds only a preview beside raw camera data; develop it first")
    if len(full) > 1:
        raise PictureError(f"has {len(full)} pages; split it into single pictures first")
    return full[0] if full else 0
