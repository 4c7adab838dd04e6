"""A picture in memory."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import PictureError


@dataclasses.dataclass(frozen=True)
class Extras:
    """What a file says beside pixels, profile and EXIF, as far as it holds for the upscaled picture as well.

    Attributes:
        density: (horizontal, vertical) dots per inch.
        xmp: XMP packet, orientation 1, without sizes in pixels.
        iptc: IPTC records (IIM).
        comment: comment of a JPEG or GIF.
        text: (keyword, text) of PNG.
        colour_chunks: (name, content) of PNG's chunks about colour; `Picture.icc` says the same where a profile can.
        hdr: "PQ" or "HLG" where these chunks say so, which no profile can.
        lost: what was in the file and is not kept, for the user to read, such as "a gain map".
    """

    density: tuple[float, float] | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    hdr: str | None = None
    lost: tuple[str, ...] = ()


@dataclasses.dataclass
class Picture:
    """A picture at its native depth, upright.

    Attributes:
        pixels: (H, W, 3) RGB, uint8 (0..255) or uint16 (0..65535).
        alpha: (H, W) of the same type, 0 = transparent, not multiplied into `pixels`; None where the picture has none.
        gray: the three channels are equal and are written as one.
        icc: ICC profile of the pixels; None stands for sRGB (or gray with sRGB's curve).
        exif: EXIF block ("Exif\\0\\0" and a TIFF structure), orientation 1; None where there is none.
        extras: what else the file says.

    Raises:
        PictureError: the arrays do not have these shapes and types.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    gray: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    extras: Extras = dataclasses.field(default_factory=Extras)

    def __post_init__(self) -> None:
        """Check shapes and types."""
        pixels, alpha = self.pixels, self.alpha
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0 or pixels.dtype not in (np.uint8, np.uint16):
            raise PictureError(f"pixels must be (H, W, 3) of uint8 or uint16, not {pixels.shape} of {pixels.dtype}")
        if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
            raise PictureError(
                f"alpha must be {pixels.shape[:2]} of {pixels.dtype} like the pixels, not {alpha.shape} of {alpha.dtype}"
            )

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])

    @property
    def see_through(self) -> bool:
        """Whether any pixel is not opaque."""
        alpha = self.alpha
        return alpha is not None and bool(alpha.min() < np.iinfo(alpha.dtype).max)

    def samples(self, alpha: bool) -> NDArray[Any]:
        """Return the channels to be written, (H, W, 1 gray or 3), and one more with `alpha`."""
        colour = self.pixels
        if self.gray:
            # Pixels that a network made are gray only nearly.
            colour = ((colour.sum(axis=-1, dtype=np.uint32, keepdims=True) + 1) // 3).astype(colour.dtype)
        if not alpha or self.alpha is None:
            return colour
        return np.concatenate([colour, self.alpha[..., None]], axis=-1)
