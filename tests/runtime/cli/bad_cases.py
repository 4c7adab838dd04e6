"""The table of bad input: what users get wrong on the command line and with their files; their models have a table of their own."""

from pathlib import Path

from PIL import Image

from tests.runtime.cli.bad_files import (
    Prepare,
    bomb,
    cut,
    gray,
    nothing,
    one_alone,
    pair,
    two_folders,
    upscale,
    written,
)
from tests.runtime.cli.bad_model_cases import MODEL_CASES


def train(content: str) -> tuple[Prepare, list[str]]:
    return written("run.toml", content), ["train", "run.toml", "-o", "run"]


# id: what lies there beside picture.png, model.onnx and model.safetensors; arguments; exit code; what the line says
CASES: dict[str, tuple[Prepare, list[str], int, str]] = {
    **MODEL_CASES,
    # command line
    "no command": (nothing, [], 2, "required: COMMAND"),
    "unknown command": (nothing, ["upscail"], 2, "invalid choice: 'upscail'"),
    "unknown flag": (nothing, upscale("--fast"), 2, r"unrecognized arguments: --fast \(see: flashrib upscale --help\)"),
    "abbreviated flag": (nothing, upscale("--over"), 2, "unrecognized arguments: --over"),
    "no input": (nothing, ["upscale", "-o", "out.png"], 2, "required: IN"),
    "no output": (nothing, ["upscale", "picture.png"], 2, "required: -o/--output"),
    "empty output": (nothing, upscale(out=""), 2, "-o needs the name"),
    "tile no number": (nothing, upscale("--tile", "big"), 2, "--tile: 'big' is neither"),
    "tile 0": (nothing, upscale("--tile", "0"), 2, "--tile: '0' is neither"),
    "tile negative": (nothing, upscale("--tile", "-64"), 2, "--tile: '-64' is neither"),
    "tile of one side 0": (nothing, upscale("--tile", "64x0"), 2, "--tile: '64x0' is neither"),
    "tile of three sides": (nothing, upscale("--tile", "1x2x3"), 2, "--tile: '1x2x3' is neither"),
    "halo negative": (nothing, upscale("--halo", "-1"), 2, "--halo: '-1' is not a whole number, at least 0"),
    "threads 0": (nothing, upscale("--threads", "0"), 2, "--threads: '0' is not a whole number from 1 to 1024"),
    "quality 101": (nothing, upscale("--quality", "101"), 2, "--quality: '101' is not a whole number from 1 to 100"),
    "scale no number": (nothing, upscale("--scale", "two"), 2, "--scale: 'two' is not a whole number"),
    "unknown session": (nothing, upscale("--session", "tensorflow"), 2, "invalid choice: 'tensorflow'"),
    "unknown device": (nothing, upscale("--device", "tpu"), 2, "device 'tpu' is not one of auto, cpu, cuda"),
    "GPU twice": (nothing, upscale("--device", "cuda:0,cuda:0"), 2, "device 'cuda:0,cuda:0' names a GPU twice"),
    "precision for an ONNX file": (
        nothing,
        upscale("--precision", "fp16"),
        2,
        "--precision fp16: model.onnx is an ONNX file and has its own",
    ),
    "GPUs for ONNX Runtime": (
        nothing,
        upscale("--device", "cuda:0,cuda:1"),
        2,
        "ONNX Runtime runs on one GPU: name one",
    ),
    "option of a provider": (nothing, upscale("--provider-option", "x"), 2, "'x' is not of the form KEY=VALUE"),
    "CUDA graph for an ONNX file": (
        nothing,
        upscale("--cuda-graph"),
        2,
        "--cuda-graph: model.onnx is an ONNX file, and only engines",
    ),
    "torch for an ONNX file": (
        nothing,
        upscale("--session", "torch"),
        2,
        "model.onnx: is an ONNX file, .* --session onnxr",
    ),
    "ONNX Runtime for a checkpoint": (
        nothing,
        upscale("--session", "onnxruntime", model="model.safetensors"),
        2,
        "model.safetensors: is a checkpoint, .* --session torch",
    ),
    # pictures in
    "missing picture": (nothing, upscale(picture="nowhere.png"), 1, "nowhere.png: there is no such file"),
    "newline in a name": (nothing, upscale(picture="no\nwhere.png"), 1, "no where.png: there is no such file"),
    "pattern without a match": (nothing, upscale(picture="*.webp"), 1, r"\*.webp: no file matches"),
    "folder without pictures": (lambda: Path("empty").mkdir(), upscale(picture="empty"), 1, "empty: no pictures"),
    "a device": (nothing, upscale(picture="/dev/null"), 1, "/dev/null: is a device, not a picture"),
    "empty picture": (written("empty.png", b""), upscale(picture="empty.png"), 1, "empty.png: the file is empty"),
    "text named .png": (written("text.png", "hello\n" * 9), upscale(picture="text.png"), 1, "text.png: is not a PNG"),
    "truncated PNG": (cut("cut.png"), upscale(picture="cut.png"), 1, "cut.png: is damaged or truncated"),
    "truncated JPEG": (cut("cut.jpg"), upscale(picture="cut.jpg"), 1, "cut.jpg: is damaged or truncated"),
    "truncated WebP": (cut("cut.webp"), upscale(picture="cut.webp"), 1, "cut.webp: is"),
    "truncated TIFF": (cut("cut.tif"), upscale(picture="cut.tif"), 1, "cut.tif: is"),
    "decompression bomb": (
        bomb,
        upscale(picture="bomb.png"),
        1,
        "bomb.png: (100000 x 100000 pixels are more than|is damaged or truncated)",
    ),
    # pictures out
    "output exists": (written("old.png", "old"), upscale(out="old.png"), 1, "old.png: exists already"),
    "output extension unknown": (nothing, upscale(out="out.gif"), 1, "out.gif: cannot write '.gif' files"),
    "output below a file": (nothing, upscale(out="model.onnx/out/"), 1, "model.onnx/out.*model.onnx is a file"),
    "output folder is a file": (
        nothing,
        ["upscale", "picture.png", "model.onnx", "-o", "model.safetensors"],
        1,
        "model.safetensors: cannot be a folder",
    ),
    "output folder of a file cannot be": (nothing, upscale(out="model.onnx/out.png"), 1, "model.onnx is a file"),
    "format unknown": (nothing, upscale("--format", "gif"), 2, "'gif' is none of the formats that are written: png"),
    "suffix with a slash": (nothing, upscale("--suffix", "a/b"), 2, "'a/b' cannot be a part of a file name"),
    "suffix of a file": (nothing, upscale("--suffix", "_x2"), 2, "--suffix and --format name results in a folder"),
    "json and picture to the same place": (nothing, upscale("--json", out="-"), 2, "both write to standard output"),
    "output is the input": (nothing, upscale("--overwrite", out="picture.png"), 2, "replace the input picture.png"),
    "two pictures into one file": (
        two_folders,
        ["upscale", "a", "b", "-o", "out.png"],
        2,
        "out.png: is the name of one picture, but there are 2",
    ),
    "two results of one name": (
        two_folders,
        ["upscale", "a", "b", "-o", "out"],
        2,
        "out/same.png: would be the result of both a/same.png and b/same.png",
    ),
    "alpha into JPEG": (
        lambda: Image.new("RGBA", (9, 8), (1, 2, 3, 99)).save("glass.png"),
        upscale(picture="glass.png", out="out.jpg"),
        1,
        "out.jpg: JPEG cannot keep transparency",
    ),
    "too long for JPEG": (
        gray("long.png", 40_000, 1),
        upscale(picture="long.png", out="out.jpg"),
        1,
        "out.jpg: 80000 x 2 is too large for JPEG",
    ),
    # info
    "info on a picture": (nothing, ["info", "picture.png"], 1, r"picture.png: neither an engine .* b'\\x89PNG"),
    "info on a missing file": (nothing, ["info", "nowhere.pth"], 1, "nowhere.pth: there is no such file"),
    "info with another arch": (nothing, ["info", "model.onnx", "--arch", "sst"], 1, "its arch is sst-light, not sst"),
    # evaluate
    "evaluate nothing": (nothing, ["evaluate"], 2, "give either DIR or --hr DIR"),
    "evaluate two things": (nothing, ["evaluate", "a", "--hr", "b"], 2, "give either DIR or --hr DIR"),
    "evaluate --lr alone": (nothing, ["evaluate", "a", "--lr", "b"], 2, "--lr b needs --hr"),
    "evaluate a missing folder": (nothing, ["evaluate", "nowhere"], 1, "nowhere: cannot be read as a folder"),
    "evaluate no pictures": (
        lambda: Path("empty").mkdir(),
        ["evaluate", "empty"],
        1,
        "empty: no pictures in this folder",
    ),
    "evaluate other sizes": (
        pair((40, 50), (20, 24)),
        ["evaluate", "pairs", "--model", "model.onnx"],
        1,
        "pairs/cat_HR.png: has 40x50 pixels, but cat_LR.png upscaled by 2 has 40x48",
    ),
    "evaluate too small": (
        pair((12, 12), (0, 0)),
        ["evaluate", "pairs", "--model", "model.onnx"],
        1,
        "pairs/cat_HR.png: ssim needs 11 pixels a side, not 8 x 8",
    ),
    "evaluate without a partner": (
        one_alone,
        ["evaluate", "--hr", "b", "--lr", "a"],
        1,
        r"b/other.png: no low-resolution picture other\* in a",
    ),
    # train
    "train without a configuration": (
        nothing,
        ["train", "no.toml", "-o", "run"],
        2,
        "no.toml: cannot be read as a TOML",
    ),
    "train minutes 0": (nothing, ["train", "no.toml", "-o", "run", "--minutes", "0"], 2, "'0' is not a number above 0"),
    "training data missing": (*train("steps = 5"), 2, "run.toml: the field data is missing"),
    "training data not there": (*train("data = ['hr']"), 2, "hr: cannot be read as a folder of pictures: No such file"),
    "training field unknown": (*train("data = ['hr']\nstepz = 5"), 2, r"run.toml: unknown field\(s\) stepz"),
    "training field mistyped": (
        *train("data = ['hr']\nsteps = 'many'"),
        2,
        "run.toml: steps = 'many' must be of type int",
    ),
    "training no TOML": (*train("steps: 5"), 2, "run.toml: cannot be read as a TOML"),
    "training into a file": (
        written("run.toml", "data = ['hr']"),
        ["train", "run.toml", "-o", "model.onnx"],
        1,
        "model.onnx: the folder cannot be made: File exists",
    ),
}
