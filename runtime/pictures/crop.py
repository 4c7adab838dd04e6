"""A picture as classifiers want it: scaled to a shorter side, the middle square cut out, RGB in 0..1."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flashrib.runtime.pictures.picture import Picture

# Pictures of up to this side are cut out of 8/7 of it, larger ones are taken whole: the evaluation of MAE and Fibottention.
_LARGEST_CUT, _SHARE = 224, 0.875


def square(picture: Picture, side: int) -> NDArray[np.uint8]:
    """Return the middle of a picture as (side, side, 3) RGB, uint8; transparency is ignored.

    Its shorter side becomes side / 0.875 pixels (`side` itself above 224) by Pillow's antialiased bicubic, then the middle is cut out.
    """
    pixels = picture.pixels if picture.pixels.dtype == np.uint8 else np.rint(picture.pixels / 257).astype(np.uint8)
    shorter = int(side / _SHARE) if side <= _LARGEST_CUT else side
    scale = shorter / min(picture.height, picture.width)
    width, height = (
        shorter if length == min(picture.height, picture.width) else max(int(length * scale), shorter)
        for length in (picture.width, picture.height)
    )
    image = Image.fromarray(pixels)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))
