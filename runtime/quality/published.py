"""Figures that the authors of SST and ESC-RIB published, to stand beside one's own: Y-PSNR in dB and SSIM on the usual test sets.

Source: the pictures of the official repository (github.com/dslisleedh/SST); arXiv 2603.06738. DFLIP is the data that a network was trained
on. They have none of SST-light.
"""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Published:
    """A published figure.

    Attributes:
        network: as its authors call it.
        psnr: in dB.
        ssim: None where it was not given.
    """

    network: str
    psnr: float
    ssim: float | None = None


_XL, _L, _ESC = "SST-XL+ (DFLIP)", "SST-L+", "ESC-RIB (DFLIP)"
_PFT, _MAMBA = "PFT", "MambaIRv2-L"

# set -> scale -> figures
TABLE: dict[str, dict[int, tuple[Published, ...]]] = {
    "set5": {
        2: (Published(_XL, 38.77, 0.9636), Published(_ESC, 38.40)),
        3: (Published(_ESC, 34.83),),
        4: (Published(_XL, 33.24), Published(_ESC, 32.82)),
    },
    "set14": {
        2: (Published(_XL, 35.40, 0.9289), Published(_ESC, 34.45)),
        3: (Published(_ESC, 30.98),),
        4: (Published(_XL, 29.66), Published(_ESC, 29.06)),
    },
    "bsd100": {
        2: (Published(_XL, 32.75, 0.9063), Published(_ESC, 32.52)),
        3: (Published(_ESC, 29.42),),
        4: (Published(_XL, 28.12), Published(_ESC, 27.87)),
    },
    "urban100": {
        2: (
            Published(_XL, 35.83, 0.9540),
            Published(_L, 35.63),
            Published(_PFT, 35.24),
            Published(_MAMBA, 35.20),
            Published(_ESC, 34.09),
        ),
        3: (Published(_L, 31.53), Published(_MAMBA, 31.13), Published(_PFT, 31.08), Published(_ESC, 29.88)),
        4: (
            Published(_XL, 29.38),
            Published(_L, 29.06),
            Published(_MAMBA, 28.75),
            Published(_PFT, 28.71),
            Published(_ESC, 27.59),
        ),
    },
    "manga109": {
        2: (Published(_XL, 41.01, 0.9825), Published(_ESC, 39.77)),
        3: (Published(_ESC, 34.99),),
        4: (Published(_XL, 33.40), Published(_ESC, 31.93)),
    },
}
_OTHER_NAMES = {"b100": "bsd100"}


def published(folder: Path, scale: int) -> tuple[Published, ...]:
    """Return the figures for the test set that a folder is named after (Set5, Urban100/HR, ...); none for any other folder."""
    for part in reversed(folder.absolute().parts):
        name = _OTHER_NAMES.get(part.lower(), part.lower())
        if name in TABLE:
            return TABLE[name].get(scale, ())
    return ()
