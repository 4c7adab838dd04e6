"""The report of a comparison: one HTML page that needs nothing else, with a slider over the pictures and a map of the differences."""

import base64
import html
import importlib.metadata
import io
import json
import math
import platform
import string
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.artifacts.files import write_whole
from flashrib.runtime.pictures.encode import Metadata, encode_png
from flashrib.runtime.pictures.imresize import imresize
from flashrib.runtime.quality.parity import Artifact, Parity, Shown, psnr_drop, to_8_bits
from flashrib.runtime.quality.parity_inputs import Pixels
from flashrib.runtime.sessions.protocol import Batch
from flashrib.runtime.sessions.table import SESSIONS

# Evenly spaced colours of matplotlib's "inferno" (CC0), dark to bright: its lightness rises evenly, so it reads without colour too.
HEAT = ("#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4")
_LOOKUP = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in HEAT], np.float64)


def write_report(parity: Parity, path: Path) -> None:
    """Write the page; it appears under its name once it is complete.

    Raises:
        FlashribError: the file cannot be written.
    """
    write_whole(path, render_report(parity).encode("utf-8", "backslashreplace"))  # names of files may hold anything


def render_report(parity: Parity) -> str:
    """Return the page; pictures are embedded as PNG, nothing is requested from anywhere."""
    template = string.Template(
        resources.files("flashrib.runtime.quality").joinpath("report_template.html").read_text("utf-8")
    )
    failed = sum(artifact.failure is not None for artifact in parity.artifacts)
    names = short_names([artifact.file for artifact in parity.artifacts])
    verdict = "passed" if parity.passed else f"{failed} of {len(names)} failed"
    data = json.dumps([_viewed(shown, names, parity.scale) for shown in parity.shown], allow_nan=False)
    return template.substitute(
        title=html.escape(f"flashrib parity: {verdict}"),
        scale=parity.scale,
        reference=html.escape(parity.reference.file.name),
        verdict=verdict,
        verdict_class="good" if parity.passed else "bad",
        summary=_summary(parity, names),
        details="".join(
            _details(artifact, name)
            for artifact, name in zip(parity.artifacts, names, strict=True)
            if artifact.comparisons
        )
        or "<p>Nothing could be compared.</p>",
        provenance=_provenance(parity, names),
        gradient=", ".join(HEAT),
        data=data.replace("<", "\\u003c"),  # so that no name can end the script element
    )


def short_names(files: list[Path]) -> list[str]:
    """The files' names, with as much of the path as it takes to tell them apart."""
    names = [file.name for file in files]
    return [name if names.count(name) == 1 else str(file) for name, file in zip(names, files, strict=True)]


def heat_map(output: Batch, reference: Batch) -> tuple[Pixels, float]:
    """Colour the absolute difference, the largest of the three channels.

    Args:
        output: (1, 3, H, W); NaN and infinity count as the largest difference.
        reference: (1, 3, H, W), finite.

    Returns:
        (H, W, 3) uint8, black for none and the brightest colour for the largest; and the largest.
    """
    error = np.abs(output[0].astype(np.float64) - reference[0]).max(axis=0)
    most = float(error.max(initial=0, where=np.isfinite(error)))
    level = np.where(np.isfinite(error), error / most if most else 0.0, 1.0) * (len(HEAT) - 1)
    below = np.minimum(level.astype(np.intp), len(HEAT) - 2)
    colours = _LOOKUP[below] + (level - below)[..., None] * (_LOOKUP[below + 1] - _LOOKUP[below])
    return np.asarray(np.rint(colours), np.uint8), most


def figure(value: float | None, form: str) -> str:
    """A figure as text; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else format(value, form)


def _viewed(shown: Shown, names: list[str], scale: int) -> dict[str, Any]:
    """What the page's script knows about one input."""
    low = to_8_bits(shown.case.batch)
    left = [("bicubic", imresize(low, scale)), ("reference", to_8_bits(shown.reference))]
    if shown.case.truth is not None:
        left.append(("original", shown.case.truth[: scale * low.shape[0], : scale * low.shape[1]]))
    right = []
    for index, output in shown.artifacts.items():
        heat, most = heat_map(output, shown.reference)
        right.append(
            {"name": names[index], "image": _uri(to_8_bits(output)), "heat": _uri(heat), "most": f"{most:.2g}"}
        )
    height, width = low.shape[:2]
    return {
        "name": shown.case.name,
        "size": f"{width} x {height} to {scale * width} x {scale * height} pixels",
        "left": [{"name": name, "image": _uri(pixels)} for name, pixels in left],
        "right": right,
    }


def _uri(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    encode_png(file, np.ascontiguousarray(pixels), Metadata())
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _summary(parity: Parity, names: list[str]) -> str:
    rows = []
    for artifact, name in zip(parity.artifacts, names, strict=True):
        worst, drop = artifact.worst, psnr_drop(artifact)
        good = artifact.failure is None
        verdict = f'<span class="badge {"good" if good else "bad"}">{"passed" if good else "failed"}</span>'
        ratio = max((c.rms_ratio for c in artifact.comparisons if c.finite), default=None)
        least = min((c.psnr for c in artifact.comparisons if c.finite), default=None)
        rows.append(
            f'<tr><th scope="row"><code>{html.escape(name)}</code></th><td class="left">{verdict}</td>'
            f'<td class="left">{html.escape(artifact.precision) or "–"}</td><td class="left">{html.escape(artifact.kind) or "–"}</td>'
            f"<td>{figure(worst.max_abs if worst else None, '.1e')}</td><td>{figure(ratio, '.1e')}</td>"
            f"<td>{figure(least, '.1f')}</td><td>{figure(drop, '.3f')}</td></tr>"
        )
    heads = ("File", "Verdict", "Precision", "Session", "Max abs", "RMS ratio", "Least PSNR", "PSNR loss")
    failures = "".join(
        f"<li><code>{html.escape(name)}</code> {html.escape('; '.join(filter(None, (artifact.failure, artifact.layer))))}</li>"
        for artifact, name in zip(parity.artifacts, names, strict=True)
        if artifact.failure is not None
    )
    return _table(heads, rows, left=4) + (f'<ul class="failures">{failures}</ul>' if failures else "")


def _details(artifact: Artifact, name: str) -> str:
    assert artifact.bound is not None
    limits = f'<p class="soft">Bounds of {html.escape(artifact.precision)}: {artifact.bound}</p>'
    truths = any(c.psnr_truth is not None for c in artifact.comparisons)
    rows = []
    for c in artifact.comparisons:
        flaw = "NaN" if not c.finite else "" if c.within else "over"
        badge = f' <span class="badge bad">{flaw}</span>' if flaw else ""
        cells = [f"{c.width} x {c.height}", figure(c.max_abs, ".1e"), figure(c.rms_ratio, ".1e"), figure(c.psnr, ".1f")]
        if truths:
            cells += [figure(c.psnr_truth, ".3f"), figure(c.psnr_reference, ".3f")]
        values = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{html.escape(c.case)}{badge}</th>{values}</tr>')
    heads: tuple[str, ...] = ("Input", "Size", "Max abs", "RMS ratio", "PSNR, dB")
    if truths:
        heads += ("To original, dB", "Reference, dB")
    return f"<h3>{html.escape(name)}</h3>{limits}{_table(heads, rows, left=1)}"


def _table(heads: tuple[str, ...], rows: list[str], left: int) -> str:
    cells = "".join(
        f'<th scope="col"{" class=left" if index < left else ""}>{head}</th>' for index, head in enumerate(heads)
    )
    body = "".join(rows)
    # A region that scrolls must be reachable with the keyboard.
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


def _provenance(parity: Parity, names: list[str]) -> str:
    everything = [parity.reference, *parity.artifacts]
    used = {package for artifact in everything if artifact.kind for package in SESSIONS[artifact.kind].packages}
    packages = ["flashrib", "numpy", *sorted(used)]
    entries = [(package, version(package)) for package in packages]
    entries += [("Python", platform.python_version()), ("Machine", platform.platform()), ("Seed", str(parity.seed))]
    hashes = [
        (name, f"sha256 {artifact.sha256}")
        for name, artifact in zip([parity.reference.file.name, *names], everything, strict=True)
        if artifact.sha256
    ]
    return "".join(f"<dt>{html.escape(a)}</dt><dd><code>{html.escape(b)}</code></dd>" for a, b in entries + hashes)


def version(package: str) -> str:
    """Version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
