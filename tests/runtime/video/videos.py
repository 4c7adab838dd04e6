"""Videos for the tests, made with FFmpeg's own encoders."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

VARIABLE = (0, 40, 80, 200, 240, 333, 373, 400, 500, 533)  # milliseconds


def ramp(height: int, width: int, number: int, deep: bool) -> NDArray[Any]:
    """A frame of smooth colours that moves."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([(x + 3 * number) * 160 // width, y * 160 // height, (x + y + number) * 80 // height], -1) + 40
    return (rgb * 257).astype(np.uint16) if deep else rgb.astype(np.uint8)


def write_video(
    path: Path,
    *,
    size: tuple[int, int] = (48, 64),
    times: tuple[int, ...] = VARIABLE,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    tags: tuple[int, int, int, int] = (1, 1, 1, 1),
    ratio: Fraction | None = None,
    extras: bool = False,
    same: bool = False,
    options: dict[str, str] | None = None,
) -> None:
    """Write a video whose frames are shown at `times` (ms); with `extras` two audio tracks, subtitles, chapters and an attachment."""
    height, width = size
    deep = not pixel_format.endswith(("p", "gray", "bgr0"))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, pixel_format
        context.time_base = stream.time_base = Fraction(1, 1000)
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        if ratio:
            context.sample_aspect_ratio = ratio
        stream.metadata["title"] = "the pictures"
        sounds: list[Any] = []
        texts: Any = None
        if extras:
            container.metadata["title"] = "a video"
            for language in ("eng", "ita"):
                sound: Any = container.add_stream("aac", rate=48000)
                sound.metadata["language"] = language
                sounds.append(sound)
            subtitles = path.with_suffix(".srt")
            subtitles.write_text("1\n00:00:00,100 --> 00:00:00,300\nhello\n\n2\n00:00:00,350 --> 00:00:00,500\nthere\n")
            source = av.open(str(subtitles))
            texts = (source, container.add_stream_from_template(source.streams.subtitles[0]))
            container.add_attachment("font.ttf", "application/x-truetype-font", b"a font")
            chapter = {"metadata": {"title": "one"}, "id": 1, "start": 0, "end": 240, "time_base": Fraction(1, 1000)}
            second = {"metadata": {"title": "two"}, "id": 2, "start": 240, "end": 573, "time_base": Fraction(1, 1000)}
            container.set_chapters([chapter, second])
        for number, time in enumerate(times):
            pixels = ramp(height, width, 0 if same else number, deep)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb48le" if deep else "rgb24")
            matrix = {9: 9, 5: 5, 6: 5}.get(tags[2], 1)
            frame = frame.reformat(
                format=pixel_format, dst_colorspace=matrix, src_color_range=2, dst_color_range=2 if tags[3] == 2 else 1
            )
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for sound in sounds:
            tone = np.sin(np.arange(28160) / 20).astype(np.float32)[None] * 0.3
            for part in range(0, tone.shape[1], 1024):
                samples = av.AudioFrame.from_ndarray(tone[:, part : part + 1024], format="fltp", layout="mono")
                samples.sample_rate, samples.pts, samples.time_base = 48000, part, Fraction(1, 48000)
                container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
        if texts:
            for packet in texts[0].demux():
                if packet.dts is not None:
                    packet.stream = texts[1]
                    container.mux(packet)
            texts[0].close()
