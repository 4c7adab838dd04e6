"""What is killed goes on and ends with the same result: a batch, its shards, a video, a cluster. And what surrounds the network costs.

    python benchmarks/killed.py [--what batch shards video cluster cpu] [--pictures 500] [--broken 20] [--frames 300]

With the cheap network of large.py: a folder of small pictures, some of them broken, whose process is killed three times (SIGKILL) and
started again; the same folder by four processes with --shard; a video of 640x360, 10 bit, with a varying frame rate, sound, subtitles,
chapters and an attachment, killed at five random moments; a picture of 200 tiles on a Ray cluster of this machine of which one of two
workers is killed, and what a tile costs there. With the bundled network: wall time of `flashrib upscale` on the CPU over the time in the
network. Each line says what was found, and the process ends with an error where a result differs.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from commands import photograph
from large import write_model
from PIL import Image

SIDES = 40, 56

# Runs a command line; each call of the network by a batch is a line in the file `made`.
COUNTED = """
import sys, time
from flashrib.runtime.jobs import picture
from flashrib.runtime.cli import main
real = picture.upscale_array
def counted(session, pixels, **options):
    time.sleep(0.01)
    result = real(session, pixels, **options)
    with open("made", "a") as file:
        file.write("x\\n")
    return result
picture.upscale_array = counted
sys.exit(main(sys.argv[1:]))
"""

# Runs a command line; segments of a video are so short that a run is killed after some of them are whole.
SEGMENTED = """
import functools, sys
from flashrib.runtime.cli import main, video
video.VideoOptions = functools.partial(video.VideoOptions, segment_frames=40)
sys.exit(main(sys.argv[1:]))
"""


def check(right: bool, what: str) -> None:
    if not right:
        raise SystemExit(f"wrong: {what}")


def killed_when(command: list[str], folder: Path, moment: Callable[[], bool]) -> bool:
    """Start a command and kill it as soon as `moment` says so; returns whether it lived so long."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not moment():
        time.sleep(0.01)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


def write_pictures(folder: Path, count: int, broken: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:04}.png"
        Image.fromarray(random.integers(0, 256, (*SIDES, 3), dtype=np.uint8)).save(path)
        if number % (count // broken) == 7:
            path.write_bytes(path.read_bytes()[: 200 + number])


def batch(folder: Path, arguments: argparse.Namespace) -> None:
    command = [sys.executable, "-c", COUNTED, "upscale", "in", "-o", "out", "--model", "cheap.onnx", "--json"]
    good = arguments.pictures - arguments.broken
    kills = 0
    for share in (0.2, 0.5, 0.8):
        kills += killed_when(
            command, folder, lambda share=share: len(list((folder / "out").glob("*.png"))) >= share * good
        )
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    document = json.loads(done.stdout)
    made = len((folder / "made").read_text().splitlines())
    right = sum((folder / "out" / path.name).read_bytes() == path.read_bytes() for path in (folder / "whole").iterdir())
    earlier = sum(bool(picture.get("earlier")) for picture in document["pictures"])
    left = sorted(
        path.name for path in (folder / "out").iterdir() if path.suffix != ".png" or path.name.startswith(".")
    )
    print(
        f"batch: {arguments.pictures} pictures, {kills} times killed: {right} right results, {made} computed, {earlier} of them by"
        f" earlier runs, {document['failed']} reported; left beside them: {', '.join(left) or 'nothing'}"
    )
    check(kills == 3 and right == good and document["failed"] == arguments.broken, "the batch")
    check(good <= made <= good + kills, "a picture that was done was done again")


def shards(folder: Path, arguments: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "flashrib.runtime.cli", "upscale", "in", "-o", "parts", "--model", "cheap.onnx"]
    running = [
        subprocess.Popen(
            [*command, "--shard", f"{number}/4"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for number in (1, 2, 3, 4)
    ]
    ends = [process.communicate()[0].decode().splitlines()[-1] for process in running]
    right = sum(
        (folder / "parts" / path.name).read_bytes() == path.read_bytes() for path in (folder / "whole").iterdir()
    )
    print(f"shards: {right} right results of four processes: {'; '.join(ends)}")
    check(right == arguments.pictures - arguments.broken, "the shards")


def write_video(path: Path, frames: int) -> None:
    """10 bit, each frame shown for 20 to 59 ms, an odd aspect ratio, sound, subtitles, chapters, tags, an attachment."""
    import av

    base = np.asarray(photograph(900, 620)).astype(np.uint16) * 257
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(
            "libx265", rate=25, options={"preset": "ultrafast", "x265-params": "log-level=0"}
        )
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p10le"
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        video.sample_aspect_ratio = Fraction(8, 9)
        sound: Any = container.add_stream("aac", rate=48000, layout="mono")
        container.metadata["title"], video.metadata["title"] = "a video", "the pictures"
        sound.metadata["language"] = "ita"
        lines = "".join(
            f"{n + 1}\n{clock(0.2 + 0.5 * n)} --> {clock(0.5 + 0.5 * n)}\nline {n}\n\n" for n in range(frames // 20)
        )
        path.with_suffix(".srt").write_text(lines)
        written = av.open(str(path.with_suffix(".srt")))
        texts = container.add_stream_from_template(written.streams.subtitles[0])
        texts.metadata["language"] = "eng"
        container.add_attachment("font.ttf", "application/x-truetype-font", b"a font")
        chapters = [
            {"metadata": {"title": f"part {n}"}, "id": n + 1, "start": 3000 * n, "end": 3000 * (n + 1)}
            for n in range(3)
        ]
        container.set_chapters([{**chapter, "time_base": Fraction(1, 1000)} for chapter in chapters])
        moment = 0
        for number in range(frames):
            at = 2 * (number % 120)
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(base[at : at + 360, at : at + 640]), format="rgb48le"
            )
            frame = frame.reformat(format="yuv420p10le")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            moment += int(random.integers(20, 60))
            container.mux(video.encode(frame))
        tone = (np.sin(np.arange(48 * moment) * 0.05) * 8000).astype(np.int16)[None]
        for at in range(0, tone.shape[1] - 1024, 1024):
            samples = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(tone[:, at : at + 1024]), format="s16", layout="mono"
            )
            samples.rate, samples.pts = 48000, at
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
        with written:
            for packet in written.demux():
                if packet.dts is not None:
                    packet.stream = texts
                    container.mux(packet)


def clock(seconds: float) -> str:
    return f"00:{int(seconds) // 60:02}:{int(seconds) % 60:02},{round(1000 * seconds) % 1000:03}"


def described(path: Path) -> dict[str, Any]:
    """What a video holds beside its frames: streams, tags, chapters, and the times and contents of what is copied."""
    import av

    with av.open(str(path)) as container:
        streams = [
            (s.type, s.codec_context and s.codec_context.name, known_tags(s.metadata)) for s in container.streams
        ]
        chapters = [
            (c["metadata"], float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]))
            for c in container.chapters()
        ]
        tags, shape = known_tags(container.metadata), container.streams.video[0].sample_aspect_ratio
        copied: dict[str, Any] = {"audio": [], "subtitle": []}
        for packet in container.demux():
            if packet.stream.type in copied and packet.pts is not None:
                copied[packet.stream.type].append((float(packet.pts * packet.time_base), bytes(packet)))
    return {"streams": streams, "tags": tags, "chapters": chapters, "shape": shape, **copied}


def known_tags(metadata: dict[str, str]) -> dict[str, str]:
    """Tags without those that a writer makes by itself."""
    return {
        name: value for name, value in metadata.items() if name.lower() not in ("encoder", "duration", "creation_time")
    }


def video(folder: Path, arguments: argparse.Namespace) -> None:
    write_video(folder / "in.mkv", arguments.frames)
    command = [sys.executable, "-c", SEGMENTED, "video", "in.mkv", "--model", "cheap.onnx"]
    command += ["--codec", "h265", "--preset", "ultrafast"]
    began = time.perf_counter()
    subprocess.run([*command, "-o", "whole.mkv"], cwd=folder, check=True, capture_output=True)
    whole = time.perf_counter() - began
    random, kills = np.random.default_rng(arguments.seed), 0
    for _ in range(5):
        end = time.perf_counter() + random.uniform(0.1, 0.95) * whole
        kills += killed_when([*command, "-o", "killed.mkv"], folder, lambda end=end: time.perf_counter() > end)
    done = subprocess.run([*command, "-o", "killed.mkv", "--json"], cwd=folder, capture_output=True, text=True)
    report = json.loads(done.stdout)
    same = [
        equal_frames(folder / "whole.mkv", folder / "killed.mkv"),
        equal_frames(folder / "in.mkv", folder / "killed.mkv", False),
    ]
    given, uninterrupted, resumed = (described(folder / name) for name in ("in.mkv", "whole.mkv", "killed.mkv"))
    print(
        f"video: {arguments.frames} frames, killed {kills} of 5 times, {report['resumed']} frames from earlier runs: {same[0]} frames"
        f" equal those of a run that was not killed, {same[1]} have the times of the input;"
        f" {', '.join(kind for kind, *_ in resumed['streams'])}, {len(resumed['subtitle'])} subtitles, {len(resumed['chapters'])} chapters"
    )
    check(same == [arguments.frames] * 2 and kills > 0 and report["resumed"] > 0, "the video")
    for part, value in given.items():
        check(resumed[part] == uninterrupted[part], f"the {part} of the run that was killed")
        check(bool(value) and resumed[part] == value, f"the {part} of the video")


def equal_frames(one: Path, other: Path, pixels: bool = True) -> int:
    """How many frames of two videos have equal times, and pixels; -1 where their numbers differ."""
    import av

    with av.open(str(one)) as first, av.open(str(other)) as second:
        equal, frames = (
            0,
            [
                list(container.decode(video=0)) if not pixels else container.decode(video=0)
                for container in (first, second)
            ],
        )
        try:
            for a, b in zip(*frames, strict=True):
                times = a.time is not None and abs(a.time - b.time) < 5e-4
                equal += times and (not pixels or bool(np.array_equal(a.to_ndarray(), b.to_ndarray())))
        except ValueError:
            return -1
    return equal


def cluster(folder: Path, arguments: argparse.Namespace) -> None:
    import ray

    from flashrib.runtime.sessions.cluster import ClusterOptions, ClusterSession
    from flashrib.runtime.sessions.spec import SessionSpec
    from flashrib.runtime.tiling.upscale import upscale_array

    pixels = np.asarray(photograph(1280, 640))
    spec, how = SessionSpec(folder / "cheap.onnx", "onnxruntime", device="cpu", threads=1), {"tile": 64, "halo": 8}
    with spec.open() as session:
        upscale_array(session, pixels[:64, :64])
        began = time.perf_counter()
        wanted = upscale_array(session, pixels, **how)
        here = time.perf_counter() - began
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    with ClusterSession(spec, ClusterOptions("local", 2)) as session:
        upscale_array(session, pixels[:64, :64])
        began = time.perf_counter()
        seen = upscale_array(session, pixels, **how)
        there = time.perf_counter() - began
        check(bool(np.array_equal(seen, wanted)), "the cluster")
        dead: list[int] = []

        def kill(done: int, total: int) -> None:
            if done > total // 3 and not dead:
                (workers,) = [[p for p in worker_processes() if p != os.getpid()]]
                dead.append(workers[0])
                os.kill(workers[0], signal.SIGKILL)

        again = upscale_array(session, pixels, progress=kill, **how)
        check(bool(dead) and bool(np.array_equal(again, wanted)), "the cluster whose worker was killed")
    ray.shutdown()
    tiles = (1280 // 64) * (640 // 64)
    print(
        f"cluster: {tiles} tiles of 64x64, one of two workers killed: identical; a tile takes {1e3 * there / tiles:.1f} ms by way of the"
        f" cluster, {1e3 * here / tiles:.1f} ms in this process"
    )


def worker_processes() -> list[int]:
    """Processes of Ray's actors of ours on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_Process"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def cpu(folder: Path, arguments: argparse.Namespace) -> None:
    """Wall time of a command over the time in the network."""
    from flashrib.runtime.cli import main as flashrib
    from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession

    width = round((arguments.megapixels * 1e6 * 1.5) ** 0.5)
    photograph(width, round(width / 1.5)).save(folder / "picture.jpg", quality=92)
    inside, run = [0.0], OnnxRuntimeSession.run

    def timed(self: OnnxRuntimeSession, *batch: Any) -> Any:
        began = time.perf_counter()
        try:
            return run(self, *batch)
        finally:
            inside[0] += time.perf_counter() - began

    OnnxRuntimeSession.run = timed
    began = time.perf_counter()
    code = flashrib(["upscale", str(folder / "picture.jpg"), "-o", str(folder / "picture.png"), "--device", "cpu"])
    wall = time.perf_counter() - began
    print(
        f"CPU: {arguments.megapixels:g} MP JPEG to PNG, bundled network: {wall:.0f} s, of which the network {inside[0]:.0f}:"
        f" {wall / inside[0]:.3f} times"
    )
    check(code == 0, "the exit code")


PARTS = {"batch": batch, "shards": shards, "video": video, "cluster": cluster, "cpu": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--broken", type=int, default=20)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--megapixels", type=float, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which the video is killed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "cheap.onnx")
        if {"batch", "shards"} & set(arguments.what):
            write_pictures(folder / "in", arguments.pictures, arguments.broken)
            whole = ["upscale", "in", "-o", "whole", "--model", "cheap.onnx"]
            subprocess.run([sys.executable, "-m", "flashrib.runtime.cli", *whole], cwd=folder, capture_output=True)
            for path in (folder / "whole").glob(".flashrib-*"):
                path.unlink()
        for what in arguments.what:
            PARTS[what](folder, arguments)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
