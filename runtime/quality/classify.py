"""Pictures -> classes, and how often they are the right ones."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import PictureError, SessionError
from flashrib.runtime.pictures.crop import square
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.quality.evaluate import all_of
from flashrib.runtime.sessions.protocol import Session

BATCH = 8  # pictures of a run


@dataclasses.dataclass(frozen=True)
class Scored:
    """Logits (K,) of a picture."""

    picture: Path
    logits: NDArray[np.float32]

    def best(self, count: int) -> list[tuple[int, float]]:
        """The `count` likeliest classes with their probabilities, likeliest first; of equal ones the lower number."""
        order = np.argsort(-self.logits, kind="stable")[:count]
        wide = self.logits.astype(np.float64)
        weights = np.exp(wide - wide.max())
        return [(int(i), float(weights[i] / weights.sum())) for i in order]


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Share of the pictures whose class is the likeliest one, and among the five likeliest."""

    pictures: int
    top1: float
    top5: float


def classify(session: Session, pictures: Sequence[Path]) -> Iterator[Scored]:
    """Give the logits of every picture, in order.

    Args:
        session: of a classifier; it takes pictures of one size, which they are cut to (`flashrib.runtime.pictures.crop.square`).
        pictures: files.

    Raises:
        PictureError: a picture cannot be read; it is raised when the others are done, and names them all.
        SessionError: the model failed, or gave NaN or infinity.
    """
    size = session.info.fixed_size
    if size is None or size[0] != size[1]:
        raise SessionError(f"the classifier does not say the side of its pictures (it says {size}): export it again")
    bad: list[PictureError] = []
    for begin in range(0, len(pictures), BATCH):
        paths, squares = [], []
        for path in pictures[begin : begin + BATCH]:
            try:
                squares.append(square(read_picture(path), size[0]))
                paths.append(path)
            except PictureError as error:
                bad.append(error)
        if not paths:
            continue
        cut = np.stack(squares)
        batch = np.ascontiguousarray(cut.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        logits = session.run(batch)
        if logits.ndim != 2 or len(logits) != len(paths):
            raise SessionError(
                f"the model returned the shape {logits.shape} for {len(paths)} pictures, not their logits"
            )
        for path, row in zip(paths, logits, strict=True):
            if not np.isfinite(row).all():
                raise SessionError(
                    f"the model returned NaN or infinity for {path}: use a model of higher precision (fp32)"
                )
            yield Scored(path, row)
    if bad:
        raise all_of(bad)


def accuracy(scored: Sequence[Scored], labels: Sequence[int]) -> Accuracy:
    """How often the labels, one for every picture, are the likeliest class and among the five likeliest."""
    best = [[number for number, _ in one.best(5)] for one in scored]
    first = sum(numbers[0] == label for numbers, label in zip(best, labels, strict=True))
    five = sum(label in numbers for numbers, label in zip(best, labels, strict=True))
    return Accuracy(len(scored), first / len(scored), five / len(scored))
