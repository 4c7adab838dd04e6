"""The codecs that a video can be written in: one row each."""

import dataclasses
from typing import Any

from flashrib.runtime.errors import UsageError
from flashrib.runtime.video.info import VideoInfo, require_av


@dataclasses.dataclass(frozen=True)
class Codec:
    """A row of the table.

    Attributes:
        name: what `--codec` calls it.
        encoder: FFmpeg's encoder.
        crf: default quality, on the encoder's own scale; None: it has none.
        crf_option: the encoder's name of it.
        worst: largest value of it.
        options: what else the encoder is told.
        effort_option: the encoder's name of its preset; "": none.
        effort: default preset.
        segment: FFmpeg's name of the container of its segments: it must keep times exactly.
        about: one line for `--help` and the docs.
    """

    name: str
    encoder: str
    crf: int | None = None
    crf_option: str = "crf"
    worst: int = 51
    options: tuple[tuple[str, str], ...] = ()
    effort_option: str = ""
    effort: str = ""
    segment: str = "nut"
    about: str = ""


CODECS = (
    Codec("h264", "libx264", 16, effort_option="preset", effort="veryfast", about="plays everywhere; 8 and 10 bit"),
    Codec("h265", "libx265", 18, effort_option="preset", effort="fast", about="smaller; 8, 10 and 12 bit, HDR"),
    Codec(
        "av1", "libsvtav1", 23, worst=63, effort_option="preset", effort="8", about="smallest; 8 and 10 bit, 4:2:0, HDR"
    ),
    Codec(
        "vp9",
        "libvpx-vp9",
        20,
        worst=63,
        options=(("b:v", "0"), ("row-mt", "1")),
        effort_option="cpu-used",
        effort="4",
        about="for webm",
    ),
    Codec(
        "prores",
        "prores_ks",
        options=(("profile", "3"),),
        segment="mov",
        about="for editing, in mov; 10 bit, 4:2:2 or 4:4:4",
    ),
    Codec("ffv1", "ffv1", options=(("level", "3"), ("slicecrc", "1")), about="without loss, in mkv; any format"),
    Codec("h264_nvenc", "h264_nvenc", 19, "cq", effort_option="preset", effort="p5", about="encoder of NVIDIA cards"),
    Codec("h265_nvenc", "hevc_nvenc", 21, "cq", effort_option="preset", effort="p5", about="encoder of NVIDIA cards"),
    Codec("av1_nvenc", "av1_nvenc", 27, "cq", effort_option="preset", effort="p5", about="encoder of NVIDIA cards"),
)
NAMES = tuple(codec.name for codec in CODECS)
DEFAULT = "h265"
_OF_SUFFIX = {".webm": "vp9", ".mov": "h265", ".avi": "h264"}


def codec_named(name: str | None, suffix: str) -> Codec:
    """Return the codec of this name, or the default of a container's suffix.

    Raises:
        UsageError: no such codec, or FFmpeg was built without its encoder.
    """
    wanted = name or _OF_SUFFIX.get(suffix.lower(), DEFAULT)
    found = next((codec for codec in CODECS if codec.name == wanted), None)
    if found is None:
        raise UsageError(f"unknown codec {wanted!r}: choose one of {', '.join(NAMES)}")
    if found.encoder not in require_av().codecs_available:
        raise UsageError(
            f"codec {wanted!r}: this build of FFmpeg has no encoder {found.encoder}: choose another --codec"
        )
    return found


def pixel_format(codec: Codec, video: VideoInfo) -> tuple[str, str | None]:
    """Return the encoder's pixel format that keeps most of the video's, and what is lost, or None.

    Depth comes before chroma: a format of fewer bits or coarser chroma is taken only where the encoder has none as good.
    """
    av = require_av()
    formats = av.codec.Codec(codec.encoder, "w").video_formats
    if not formats:  # an encoder that takes any
        return video.format, None
    names = [f.name for f in formats]
    wanted = _full_range_name(video.format)
    if wanted in names:
        return wanted, None
    source = av.VideoFormat(wanted)
    best = max((av.VideoFormat(name) for name in names), key=lambda f: _fitness(f, source, video.gray))
    lost = []
    if (bits := max(c.bits for c in best.components)) < video.bits:
        lost.append(f"{bits} instead of {video.bits} bit")
    if not video.gray and _chroma(best) > _chroma(source):
        lost.append(f"chroma of {best.name} instead of {video.format}")
    return best.name, "; ".join(lost) or None


def has_alpha(name: str) -> bool:
    """Say whether a pixel format has transparency, which no frame takes through the network."""
    return any(component.is_alpha for component in require_av().VideoFormat(name).components)


def options_of(
    codec: Codec, crf: int | None, effort: str | None, mastering: str | None, light: tuple[int, int] | None
) -> dict[str, str]:
    """Return FFmpeg's options of the encoder.

    Raises:
        UsageError: a quality or preset that the codec does not have.
    """
    options = dict(codec.options)
    if crf is not None and (codec.crf is None or not 0 <= crf <= codec.worst):
        has = "has no --crf" if codec.crf is None else f"takes a --crf of 0 (best) to {codec.worst}"
        raise UsageError(f"codec {codec.name!r} {has}")
    if effort is not None and not codec.effort_option:
        raise UsageError(f"codec {codec.name!r} has no --preset")
    if codec.crf is not None:
        options[codec.crf_option] = str(codec.crf if crf is None else crf)
    if codec.effort_option:
        options[codec.effort_option] = effort or codec.effort
    if codec.encoder == "libx265":
        hdr = [f"master-display={mastering}"] if mastering else []
        hdr += [f"max-cll={light[0]},{light[1]}"] if light else []
        options["x265-params"] = ":".join(["log-level=error", "repeat-headers=0", *(["hdr10=1", *hdr] if hdr else [])])
    if codec.encoder == "libsvtav1" and (mastering or light):
        parts = [f"mastering-display={_svt(mastering)}"] if mastering else []
        parts += [f"content-light={light[0]},{light[1]}"] if light else []
        options["svtav1-params"] = ":".join(parts)
    return options


def carries_hdr(codec: Codec) -> bool:
    """Say whether mastering display and light levels can be written."""
    return codec.encoder in ("libx265", "libsvtav1")


def _full_range_name(name: str) -> str:
    return name.replace("yuvj", "yuv")


def _chroma(pixel_format: Any) -> int:
    """Return how coarse chroma is: the product of the two factors, 1 for RGB and 4:4:4."""
    if len(pixel_format.components) < 3 or pixel_format.is_rgb:
        return 1
    return int(16 // pixel_format.chroma_width(16)) * int(16 // pixel_format.chroma_height(16))


def _fitness(candidate: Any, source: Any, gray: bool) -> tuple[bool, bool, int, int]:
    bits, wanted = (max(c.bits for c in f.components) for f in (candidate, source))
    chroma, needed = _chroma(candidate), _chroma(source)
    planes = len(candidate.components) >= 3 or gray
    exact = candidate.is_rgb == source.is_rgb
    # Enough depth, then enough chroma, then as little more of both as possible, then the same family.
    return planes and bits >= wanted, chroma <= needed, -abs(bits - wanted) * 10 - abs(needed - chroma), int(exact)


def _svt(mastering: str) -> str:
    """x265's integers (1/50000, 1/10000) as SVT-AV1's decimals."""
    out, number = [], ""
    scale = 50000.0
    for letter in mastering + " ":
        if letter.isdigit():
            number += letter
            continue
        if number:
            out.append(f"{int(number) / scale:.5f}")
            number = ""
        if letter == "L":
            scale = 10000.0
        out.append(letter)
    return "".join(out).strip()
