"""Parity: artifacts (checkpoints, ONNX files, engines) against a reference, on the same inputs."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flashrib.runtime.artifacts.files import sha256_of
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.kinds import ONNX, recognise_file
from flashrib.runtime.artifacts.onnx_file import describe_onnx, external_files
from flashrib.runtime.artifacts.onnx_weights import check_weights
from flashrib.runtime.errors import (
    DamagedWeightsError,
    FlashribError,
    ModelError,
    OutOfMemoryError,
    SessionError,
    UsageError,
)
from flashrib.runtime.progress import Progress
from flashrib.runtime.quality.metrics import psnr
from flashrib.runtime.quality.parity_bounds import LEAST_RMS, Bound, bound_of
from flashrib.runtime.quality.parity_expected import Expected, Source, noise_source, run_with
from flashrib.runtime.quality.parity_inputs import DEFAULT_SIDE, SEED, Case, Pixels, made_cases, picture_cases
from flashrib.runtime.quality.rms import rms_ratio
from flashrib.runtime.sessions.protocol import Batch, Session
from flashrib.runtime.sessions.stand_in import says_nothing
from flashrib.runtime.sessions.table import SESSIONS, choose_exact_session, open_session


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An artifact's output beside the reference's, for one input.

    Attributes:
        case: the input's name.
        height: of the input in pixels.
        width: of the input in pixels.
        finite: whether the output holds neither NaN nor infinity; where it does, the three figures of the error are NaN.
        max_abs: largest difference of any value, 1 being white.
        rms_ratio: RMS of the difference over RMS of the reference's output (at least `LEAST_RMS`).
        psnr: between both outputs in dB, peak 1; infinite where they are equal.
        psnr_truth: to the original in dB, on 8 bits, luma, without a border of `scale` pixels; None where there is none.
        psnr_reference: the same for the reference.
        within: no figure is over its bound.
    """

    case: str
    height: int
    width: int
    finite: bool
    max_abs: float
    rms_ratio: float
    psnr: float
    psnr_truth: float | None
    psnr_reference: float | None
    within: bool


@dataclasses.dataclass
class Artifact:
    """All that was found out about one file.

    Attributes:
        file: where it lies.
        kind: of its session, such as "onnxruntime"; "emulation" for ONNX files in bf16, for which ONNX Runtime has no kernels on
            the CPU: the same graph in float32 with every tensor rounded to bf16. Empty where none could be chosen.
        precision: "fp32", "fp16", ...; empty where it could not be opened.
        sha256: of the file; empty where it cannot be read.
        bound: what its errors are measured by; None where it could not be opened, and for the reference.
        comparisons: one per input; none for the reference.
        failure: what is wrong, in one line; None: nothing.
        layer: the first layer that diverges, in words, where somebody looked for it.
        info: what is known about it; None where it could not be opened.
        damage: what is wrong with the file's weights, in one line, though it can be opened; None: nothing that is known.
    """

    file: Path
    kind: str = ""
    precision: str = ""
    sha256: str = ""
    bound: Bound | None = None
    comparisons: list[Comparison] = dataclasses.field(default_factory=list)
    failure: str | None = None
    layer: str | None = None
    info: ModelInfo | None = None
    damage: str | None = None

    @property
    def worst(self) -> Comparison | None:
        """The comparison with the largest error, NaN and infinity being larger than any."""
        return max(self.comparisons, key=lambda c: (not c.finite, not c.within, c.max_abs), default=None)


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a report shows of one input: the outputs (1, 3, rH, rW) of the reference and, by index, of the artifacts."""

    case: Case
    reference: Batch
    artifacts: dict[int, Batch]


@dataclasses.dataclass(frozen=True)
class Parity:
    """Result of `verify`: the reference, the artifacts, and what a report shows.

    `cases` are all inputs by name, `seed` that of the random ones.
    """

    reference: Artifact
    artifacts: list[Artifact]
    scale: int
    seed: int
    cases: dict[str, Case]
    shown: list[Shown]

    @property
    def passed(self) -> bool:
        """No artifact failed."""
        return all(artifact.failure is None for artifact in self.artifacts)


def verify(
    reference: Path,
    artifacts: Sequence[Path],
    *,
    pictures: Path | None = None,
    arch: str | None = None,
    scale: int | None = None,
    key: str | None = None,
    side: int = DEFAULT_SIDE,
    seed: int = SEED,
    threads: int | None = None,
    most_shown: int = 0,
    progress: Progress = lambda done, total: None,
) -> Parity:
    """Run the reference and the artifacts on the same inputs and compare the outputs; all sessions are open at a time.

    An artifact that cannot be opened or run has failed; it keeps no other from being compared.

    Args:
        reference: what is right: a checkpoint (runs in float32), or an ONNX file.
        artifacts: what is compared with it. One of a fixed size is compared on inputs of this size.
        pictures: folder of pictures to add to the made inputs; see `picture_cases`.
        arch: architecture of files that do not say it themselves.
        scale: magnification of files that do not say it themselves.
        key: where in the checkpoints the network is; see `SessionSpec`.
        side: longest side of pictures and of the chart in pixels; larger pictures are cut.
        seed: of the random inputs.
        threads: on the CPU; see `open_session`.
        most_shown: number of inputs with something to see whose outputs are kept for a report, pictures first; all where it is as many.
        progress: called with the number of finished runs and of all.

    Raises:
        UsageError: there is no artifact.
        FlashribError: the reference or the pictures cannot be used, or the reference gives NaN or infinity.
    """
    if not artifacts:
        raise UsageError("there is no artifact to compare with the reference")
    with ExitStack() as stack:
        hints = _Hints(arch, scale, key, threads)
        truth, results = Artifact(reference), [Artifact(path) for path in artifacts]
        base = stack.enter_context(_opened(truth, hints))
        for artifact in results:
            artifact.damage = _damage_of(artifact)
        sessions = _open_all(results, truth, base, hints, stack)
        work = _choose_inputs(base, sessions, pictures, side, seed)
        kept = _choose_shown(work, most_shown)
        parity = Parity(truth, results, base.info.scale, seed, {case.name: case for case, _ in work}, [])
        runs, done = sum(1 + len(indices) for _, indices in work), 0
        for case, indices in work:
            expected = Expected(reference, base, case, seed)
            by_noise: dict[Source, list[int]] = {}
            for index in indices:
                if results[index].failure is None:
                    by_noise.setdefault(noise_source(base.info, sessions[index].info), []).append(index)
            for source, running in (by_noise or {noise_source(base.info, base.info): []}).items():
                wanted = expected.of(source)
                ran = functools.partial(_compared, case=case, source=source, expected=wanted, seed=seed)
                outputs = {index: ran(results[index], sessions[index]) for index in running}
                if case.name in kept and wanted.ndim == 4:  # scores are no picture
                    shown = {index: output for index, output in outputs.items() if output is not None}
                    parity.shown.append(Shown(case, wanted, shown))
            done += 1 + len(indices)
            progress(done, runs)
    for artifact in results:
        artifact.failure = artifact.failure or failure_of(artifact) or artifact.damage
    return parity


class _Hints(NamedTuple):
    """What the user says about model files that do not say it themselves."""

    arch: str | None
    scale: int | None
    key: str | None
    threads: int | None


def _opened(artifact: Artifact, hints: _Hints) -> Session:
    """Open the session of an artifact, and note what it is."""
    artifact.kind = choose_exact_session(artifact.file, hints.arch, hints.scale)
    artifact.sha256 = sha256_of(artifact.file)
    row = SESSIONS[artifact.kind]
    # Only then may the file need them.
    silent = row.info is None or (row.file == ONNX and says_nothing(artifact.file))
    session = open_session(
        artifact.file,
        artifact.kind,
        arch=hints.arch if silent else None,
        scale=hints.scale if silent else None,
        threads=hints.threads if "threads" in row.options else None,
        damaged=artifact.damage is not None,
        key=hints.key if "key" in row.options else None,
    )
    artifact.info, artifact.precision = session.info, session.info.precision
    return session


def _damage_of(artifact: Artifact) -> str | None:
    """What is wrong with the weights of an ONNX file, which is compared all the same; None: nothing, or it is of another kind."""
    try:
        if recognise_file(artifact.file) == ONNX:
            info = describe_onnx(artifact.file)
            external_files(artifact.file)
            check_weights(artifact.file, info)
    except DamagedWeightsError as error:
        return _named(artifact.file, error)
    except FlashribError:
        return None  # whoever opens it says so
    return None


def _open_all(
    artifacts: list[Artifact], truth: Artifact, base: Session, hints: _Hints, stack: ExitStack
) -> dict[int, Session]:
    """Open the sessions of all artifacts, by index; one that cannot be opened or compared has failed."""
    sessions: dict[int, Session] = {}
    for index, artifact in enumerate(artifacts):
        try:
            session = stack.enter_context(_opened(artifact, hints))
            artifact.bound = bound_of(artifact.precision, truth.precision)
            _check_alike(session, truth.file, base)
            sessions[index] = session
        except FlashribError as error:
            artifact.failure = _named(artifact.file, error)
    return sessions


def _choose_inputs(
    base: Session, sessions: dict[int, Session], pictures: Path | None, side: int, seed: int
) -> list[tuple[Case, list[int]]]:
    """Return the inputs, each with the indices of the artifacts that it is for: those of a fixed size need their own."""
    groups: dict[tuple[int, int] | None, list[int]] = {}
    for index, session in sessions.items():
        groups.setdefault(base.info.fixed_size or session.info.fixed_size, []).append(index)
    minimum = max([base.info.minimum, *(session.info.minimum for session in sessions.values())])
    work: list[tuple[Case, list[int]]] = []
    for size, indices in groups.items():
        cases = made_cases(minimum, side, seed, size)
        if pictures is not None:
            cases = picture_cases(pictures, base.info.scale, minimum, side, size) + cases
        work += [(case, indices) for case in cases]
    return work


def _choose_shown(work: list[tuple[Case, list[int]]], most: int) -> set[str]:
    """Return the names of the inputs that a report shows, pictures first; of all where there are no more than that."""
    if len(work) <= most:
        return {case.name for case, _ in work}
    visible = sorted((case for case, _ in work if case.shown), key=lambda case: case.name.startswith("chart"))
    return {case.name for case in visible[:most]}


def _compared(
    artifact: Artifact, session: Session, case: Case, source: Source, expected: Batch, seed: int
) -> Batch | None:
    """Run an artifact, note how its output compares, and return it; None where it failed, which is noted instead."""
    assert artifact.bound is not None
    try:
        output = run_with(session, case.batch, source, seed)
        wanted = np.clip(expected, 0, 1) if session.info.clamp else expected
        artifact.comparisons.append(compare(case, wanted, output, artifact.bound, session.info.scale))
    except SessionError as error:
        artifact.failure = f"on the input {case.name!r}: {_named(artifact.file, error)}"
        return None
    return output


def compare(case: Case, expected: Batch, output: Batch, bound: Bound, scale: int) -> Comparison:
    """Compare an output with the reference's.

    Args:
        case: the input.
        expected: output of the reference (1, 3, scale*H, scale*W), finite.
        output: that of the artifact.
        bound: of its errors.
        scale: magnification.

    Raises:
        SessionError: the shapes differ.
    """
    if output.shape != expected.shape:
        raise SessionError(f"the output is {_by(output.shape)}, but the reference's is {_by(expected.shape)}")
    height, width = case.batch.shape[2:]
    finite = bool(np.isfinite(output).all())
    max_abs = ratio = between = math.nan
    within = False
    if finite:
        error = output.astype(np.float64) - expected
        mean_square = float(np.mean(np.square(error)))
        max_abs = float(np.abs(error).max())
        ratio = rms_ratio(expected, output, LEAST_RMS)
        between = -10 * math.log10(mean_square) if mean_square else math.inf
        within = _at_most(max_abs, bound.max_abs) and _at_most(ratio, bound.rms_ratio)
    truths = [
        None if case.truth is None or not finite else psnr(to_8_bits(picture), case.truth, border=scale)
        for picture in (output, expected)
    ]
    return Comparison(case.name, height, width, finite, max_abs, ratio, between, truths[0], truths[1], within)


def failure_of(artifact: Artifact) -> str | None:
    """Say in one line which bound the errors of an artifact are over, or None."""
    worst, bound, count = artifact.worst, artifact.bound, len(artifact.comparisons)
    if worst is None or bound is None:
        return "nothing was compared"
    if broken := [c for c in artifact.comparisons if not c.finite]:
        return f"NaN or infinity in the output for the input {broken[0].case!r} ({len(broken)} of {count} inputs)"
    if over := [c for c in artifact.comparisons if not c.within]:
        absolute = not _at_most(worst.max_abs, bound.max_abs)
        figure, limit = (worst.max_abs, bound.max_abs) if absolute else (worst.rms_ratio, bound.rms_ratio)
        return (
            f"differs by {figure:.2e} ({'max abs' if absolute else 'RMS ratio'}) on the input {worst.case!r}, but"
            f" {artifact.precision} may differ by {limit:.0e} ({len(over)} of {count} inputs are over their bound)"
        )
    drop = psnr_drop(artifact)
    if drop is not None and drop > bound.psnr_drop:
        return (
            f"loses {drop:.3f} dB of PSNR to the originals, but {artifact.precision} may lose {bound.psnr_drop:.3f} dB"
        )
    return None


def psnr_drop(artifact: Artifact) -> float | None:
    """Mean loss of PSNR to the originals against the reference in dB, or None where no picture has an original."""
    drops = [
        c.psnr_reference - c.psnr_truth
        for c in artifact.comparisons
        if c.psnr_truth is not None and c.psnr_reference is not None and c.psnr_truth != c.psnr_reference
    ]
    counted = sum(c.psnr_truth is not None for c in artifact.comparisons)
    return math.fsum(drops) / counted if counted else None


def to_8_bits(batch: Batch) -> Pixels:
    """The first picture of (B, 3, H, W), nominally 0..1, as (H, W, 3) uint8; NaN becomes black."""
    values = np.clip(np.nan_to_num(batch[0]), 0, 1).transpose(1, 2, 0)
    return np.asarray(np.rint(values * 255), np.uint8)


def _check_alike(session: Session, reference: Path, base: Session) -> None:
    """Raise ModelError where no common input gives comparable outputs."""
    seen, wanted = session.info, base.info
    noise_source(wanted, seen)
    if seen.scale != wanted.scale:
        raise ModelError(f"upscales by {seen.scale}, but the reference {reference} by {wanted.scale}")
    if wanted.fixed_size and seen.fixed_size not in (None, wanted.fixed_size):
        assert seen.fixed_size is not None
        raise ModelError(
            f"takes {_by(seen.fixed_size)} pixels only, but the reference {reference} takes {_by(wanted.fixed_size)} only:"
            " use a reference of any size"
        )


def _at_most(value: float, bound: float | None) -> bool:
    return bound is None or value <= bound


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _named(file: Path, error: FlashribError) -> str:
    """The error's text without the file's name in front, which whoever prints it puts there."""
    text = str(error).removeprefix(f"{file}: ")
    return f"out of memory: {text}" if isinstance(error, OutOfMemoryError) else text
