"""The segments of the pictures and everything else of the video in one file: audio, subtitles, attachments, chapters, tags, copied."""

import dataclasses
import heapq
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from flashrib.runtime.errors import FlashribError, PictureError
from flashrib.runtime.video.info import VideoInfo, message_of, picture_stream, require_av
from flashrib.runtime.video.segments import LEAD

_Packet = tuple[float, int, Any]


@dataclasses.dataclass(frozen=True)
class Joined:
    """What came into the file.

    Attributes:
        frames: pictures.
        copied: kinds of the other streams, "audio", "subtitle", "attachment", "data".
        left: what the container cannot hold, with the reason.
    """

    frames: int
    copied: tuple[str, ...]
    left: tuple[str, ...]


def join(
    source: Any,
    video: VideoInfo,
    segments: list[Path],
    staged: Path,
    target: Path,
    start: Fraction | None = None,
    end: Fraction | None = None,
    rotation: int = 0,
) -> Joined:
    """Write the video.

    Args:
        source: the video, opened again, for what is copied from it.
        video: what it is.
        segments: its upscaled segments, in order.
        staged: the file to write, whose suffix says the container.
        target: what it will be called, for messages.
        start: seconds at which the segments begin; what is copied begins there too, and the result at 0.
        end: seconds at which they end.
        rotation: degrees by which a player turns the pictures, counterclockwise.

    Raises:
        FlashribError: the container cannot hold the codec, or the file cannot be written.
    """
    av = require_av()
    offset = Fraction(0) if start is None else start
    order = [pts for path in segments for pts in _times(path, video.time_base)]
    if not order:
        raise PictureError(f"{video.path}: there is no frame to write")
    decoding = _decoding_times(order)
    try:
        with av.open(str(staged), "w") as container:
            with av.open(str(segments[0])) as first:
                pictures = container.add_stream_from_template(first.streams.video[0], opaque=True)
                pictures.metadata.update(_tags(picture_stream(source)))
                pictures.time_base = video.time_base
            # NUT keeps what the bitstream says of its colours and no more, and not every codec says it.
            colours = pictures.codec_context
            colours.color_range, colours.colorspace = video.range, video.matrix
            colours.color_primaries, colours.color_trc = video.primaries, video.transfer
            if rotation:
                pictures.set_display_rotation(rotation)
            others, attachments, left = _copied_streams(container, source)
            container.metadata.update(source.metadata)
            if chapters := _chapters(source.chapters(), start, end):
                container.set_chapters(chapters)
            packets = heapq.merge(
                _pictures(segments, decoding, video.time_base, offset, pictures),
                _others(source, others, start, end),
                key=lambda item: item[:2],
            )
            for _, _, packet in packets:
                container.mux(packet)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise FlashribError(
            f"{target}: cannot be written: {message_of(error)}; not every container holds every codec, .mkv holds most"
        ) from error
    kinds = tuple(stream.type for stream in others.values()) + attachments
    return Joined(len(order), kinds, tuple(left))


def _times(path: Path, time_base: Fraction) -> list[int]:
    """Return when the frame of every packet of a segment is shown, in its order, in ticks."""
    with require_av().open(str(path)) as segment:
        return [_ticks(p, time_base) for p in segment.demux(segment.streams.video[0]) if p.pts is not None]


def _ticks(packet: Any, time_base: Fraction) -> int:
    """Return a packet's time in ticks of the video's time base; NUT keeps it in a finer one, and later by `LEAD`."""
    return int(round(packet.pts * packet.time_base / time_base) - round(LEAD / time_base))


def _decoding_times(shown: list[int]) -> list[int]:
    """Return when each packet is decoded, in ticks, from when it is shown: rising, and never later than that.

    Each segment was encoded on its own, so the times that its encoder gave overlap those of the segment before. Here the packet number i
    gets the time of the frame that is shown as number i - d, where d is how far packets are moved at most.
    """
    times = sorted(shown)
    place = {pts: i for i, pts in enumerate(times)}
    delay = max((i - place[pts] for i, pts in enumerate(shown)), default=0)
    step = max(1, (times[-1] - times[0]) // max(1, len(times) - 1))
    before = [times[0] - (delay - i) * step for i in range(delay)]
    return (before + times)[: len(times)]


def _pictures(
    segments: list[Path], decoding: list[int], time_base: Fraction, offset: Fraction, stream: Any
) -> Iterator[_Packet]:
    moved = round(offset / time_base)
    number = 0
    for path in segments:
        with require_av().open(str(path)) as segment:
            for packet in segment.demux(segment.streams.video[0]):
                if packet.pts is None:
                    continue
                length = round((packet.duration or 0) * packet.time_base / time_base)
                shown = _ticks(packet, time_base)
                packet.pts, packet.dts, packet.time_base = shown - moved, decoding[number] - moved, time_base
                packet.duration = length
                packet.stream = stream
                number += 1
                yield float(packet.dts * time_base), 0, packet


def _copied_streams(container: Any, source: Any) -> tuple[dict[int, Any], tuple[str, ...], list[str]]:
    """Make a stream of the result for each that is copied: index in the source -> stream; attachments; and what cannot be copied."""
    av = require_av()
    streams, attached, left = {}, 0, []
    pictures = picture_stream(source)
    for stream in source.streams:
        if stream.index == pictures.index:
            continue
        name = f"stream {stream.index} ({stream.type}{', ' + _codec(stream) if _codec(stream) else ''})"
        try:
            if stream.type == "attachment":
                if container.format.name != "matroska":
                    left.append(f"{name}: only .mkv holds attachments")
                    continue
                container.add_attachment(
                    stream.name or "attachment", stream.mimetype or "application/octet-stream", stream.data
                )
                attached += 1
                continue
            if stream.type not in ("audio", "subtitle", "video", "data"):
                left.append(f"{name}: of a kind that cannot be copied")
                continue
            if _codec(stream) not in container.supported_codecs:
                left.append(f"{name}: {container.format.name} does not hold this codec; .mkv does")
                continue
            made = container.add_stream_from_template(stream, opaque=True)
            made.metadata.update(_tags(stream))
            made.time_base = stream.time_base
            made.disposition = stream.disposition
            streams[stream.index] = made
        except (av.error.FFmpegError, ValueError, TypeError) as error:
            left.append(f"{name}: {container.format.name} does not hold it ({message_of(error)})")
    return streams, ("attachment",) * attached, left


def _tags(stream: Any) -> dict[str, str]:
    """Return a stream's tags without those that a muxer counts again."""
    counted = ("DURATION", "NUMBER_OF_", "_STATISTICS", "BPS", "ENCODER")
    return {key: value for key, value in stream.metadata.items() if not key.upper().startswith(counted)}


def _codec(stream: Any) -> str:
    context = getattr(stream, "codec_context", None)
    return "" if context is None else str(context.name)


def _others(source: Any, streams: dict[int, Any], start: Fraction | None, end: Fraction | None) -> Iterator[_Packet]:
    if not streams:
        return
    for packet in source.demux([source.streams[index] for index in streams]):
        if packet.dts is None or packet.pts is None:
            continue
        seconds = packet.pts * packet.time_base
        if (start is not None and seconds < start) or (end is not None and seconds >= end):
            continue
        moved = round((start or 0) / packet.time_base)
        packet.pts, packet.dts = packet.pts - moved, packet.dts - moved
        target = streams[packet.stream.index]
        packet.stream = target
        yield float(packet.dts * packet.time_base), 1 + target.index, packet


def _chapters(chapters: list[dict[str, Any]], start: Fraction | None, end: Fraction | None) -> list[dict[str, Any]]:
    """Return the chapters of the part from `start` to `end`, moved so that it begins at 0."""
    result = []
    for chapter in chapters:
        base = chapter["time_base"]
        low = max(chapter["start"], round((start or 0) / base))
        high = chapter["end"] if end is None else min(chapter["end"], round(end / base))
        if low < high:
            moved = round((start or 0) / base)
            result.append(chapter | {"start": low - moved, "end": high - moved})
    return result
