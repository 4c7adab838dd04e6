"""The table of bad models: ONNX files, checkpoints and engines. For the columns see `bad_cases`."""

import os
import pickle
from pathlib import Path

import torch
from safetensors.torch import save_file

from flashrib.model import build_model
from tests.runtime.cli.bad_files import (
    WEIGHT,
    Payload,
    Prepare,
    changed,
    changed_onnx,
    external,
    halved,
    nothing,
    opset,
    static_onnx,
    upscale,
    written,
)
from tests.runtime.models import write_onnx
from tests.runtime.sessions.engines import PLAN, write_engine
from tests.runtime.sessions.test_onnxruntime import METADATA

MODEL_CASES: dict[str, tuple[Prepare, list[str], int, str]] = {
    # ONNX files
    "missing model": (nothing, upscale(model="nowhere.onnx"), 1, "nowhere.onnx: there is no such file"),
    "model is a folder": (
        lambda: Path("m").mkdir(),
        upscale(model="m"),
        1,
        "m: cannot be read as a model: Is a directory",
    ),
    "empty ONNX": (written("e.onnx", b""), upscale(model="e.onnx"), 1, r"e.onnx: not an ONNX file, .*\(0 bytes\)"),
    "garbage ONNX": (written("g.onnx", b"\xff" * 99), upscale(model="g.onnx"), 1, "g.onnx: not an ONNX file"),
    "truncated ONNX": (
        halved("model.onnx", "cut.onnx"),
        upscale(model="cut.onnx"),
        1,
        "cut.onnx: not an ONNX file, or a tru",
    ),
    "foreign ONNX": (
        lambda: write_onnx(Path("foreign.onnx"), metadata={}),
        upscale(model="foreign.onnx"),
        1,
        "foreign.onnx: says nothing about itself .* it was not made by flashrib, or another program",
    ),
    "malformed metadata": (
        lambda: write_onnx(Path("odd.onnx"), metadata=METADATA.to_properties() | {"flashrib.scale": "[2"}),
        upscale(model="odd.onnx"),
        1,
        r"odd.onnx: the metadata property 'flashrib.scale' is malformed: '\[2'",
    ),
    "opset too high": (
        changed_onnx("odd.onnx", opset(99)),
        upscale(model="odd.onnx"),
        1,
        "odd.onnx: is of ONNX opset 99, but flashrib makes and takes files of opset 18 to 23: export it again",
    ),
    "opset too low to verify": (
        changed_onnx("odd.onnx", opset(9)),
        ["verify", "odd.onnx", "model.onnx"],
        1,
        "odd.onnx: is of ONNX opset 9,",
    ),
    "opset too high to build": (
        changed_onnx("odd.onnx", opset(99)),
        ["build", "odd.onnx", "-o", "odd.engine", "--flavour", "rtx"],
        1,
        "odd.onnx: is of ONNX opset 99,",
    ),
    "foreign ONNX to build": (
        lambda: write_onnx(Path("foreign.onnx"), metadata={}),
        ["build", "foreign.onnx", "-o", "f.engine", "--flavour", "rtx"],
        1,
        "foreign.onnx: says nothing about itself .* it was not made by flashrib, or another program",
    ),
    "external data missing": (
        changed_onnx("far.onnx", external("gone.bin")),
        upscale(model="far.onnx"),
        1,
        "far.onnx: its external data 'gone.bin' is missing: copy it beside",
    ),
    "external data missing to verify": (
        changed_onnx("far.onnx", external("gone.bin")),
        ["verify", "far.onnx", "model.onnx"],
        1,
        "far.onnx: its external data 'gone.bin' is missing",
    ),
    "external data outside": (
        changed_onnx("far.onnx", external("../gone.bin")),
        upscale(model="far.onnx"),
        1,
        "far.onnx: its external data '../gone.bin' lies outside its folder",
    ),
    "external data anywhere": (
        changed_onnx("far.onnx", external("/etc/passwd")),
        upscale(model="far.onnx"),
        1,
        "far.onnx: its external data '/etc/passwd' lies outside its folder",
    ),
    "external data through a link": (
        lambda: (os.symlink("/etc/passwd", "link.bin"), changed_onnx("far.onnx", external("link.bin"))()),
        upscale(model="far.onnx"),
        1,
        "far.onnx: its external data 'link.bin' lies outside its folder",
    ),
    "external data truncated": (
        lambda: (Path("w.bin").write_bytes(bytes(15)), changed_onnx("far.onnx", external("w.bin"))()),
        upscale(model="far.onnx"),
        1,
        r"far.onnx: its external data 'w.bin' is truncated \(15 bytes of 16\): copy it again",
    ),
    # engines
    "engine without a manifest": (
        written("a.engine", PLAN),
        upscale(model="a.engine"),
        1,
        "a.engine: its manifest a.engine.json is missing",
    ),
    "engine with one byte changed": (
        lambda: write_engine(Path("a.engine")).write_bytes(PLAN[:-1] + b"\0"),
        upscale(model="a.engine"),
        1,
        "a.engine: is not the engine that its manifest describes .*: it is damaged or was replaced; build it again",
    ),
    "manifest with one byte changed": (
        lambda: (
            write_engine(Path("a.engine")),
            Path("a.engine.json").write_text(Path("a.engine.json").read_text().replace('"rtx"', '"rty"')),
        ),
        upscale(model="a.engine"),
        1,
        "a.engine.json: not a manifest of flashrib: flavour is 'rty', but it must be rtx or tensorrt",
    ),
    "engine on the CPU": (
        lambda: write_engine(Path("a.engine")),
        upscale("--device", "cpu", model="a.engine"),
        2,
        "--device cpu: a.engine is an engine",
    ),
    "engine of another scale": (
        lambda: write_engine(Path("a.engine")),
        upscale("--scale", "4", model="a.engine"),
        1,
        "a.engine: its scale is 2, not 4",
    ),
    "tile below the minimum": (
        nothing,
        ["export", "model.safetensors", "-o", "m.onnx", "--tile", "4x64"],
        2,
        "tile 4x64: sst-custom needs at least 5 pixels",
    ),
    "neither ONNX nor checkpoint": (
        written("m.bin", "model"),
        upscale(model="m.bin"),
        1,
        "m.bin: neither an engine .* nor an ONNX file",
    ),
    "another arch than the ONNX file": (
        nothing,
        upscale("--arch", "sst"),
        1,
        "model.onnx: its arch is sst-light, not sst",
    ),
    "another scale than the ONNX file": (nothing, upscale("--scale", "4"), 1, "model.onnx: its scale is 2, not 4"),
    "halo that fills a static model": (
        static_onnx,
        upscale("--halo", "32", model="static.onnx", picture="large.bmp"),
        1,
        "large.bmp: the model takes exactly 64 pixels, of which a halo of 64",
    ),
    # checkpoints
    "code in a pickle": (
        lambda: torch.save({"params": Payload()}, "code.pth"),
        upscale(model="code.pth"),
        1,
        "code.pth: refused, because a pickle can run code and it asks for posix.mkdir",
    ),
    "code in a plain pickle": (
        lambda: Path("code.pt").write_bytes(pickle.dumps(Payload(), 4)),
        upscale(model="code.pt"),
        1,
        "code.pt: refused, because a pickle can run code",
    ),
    "truncated .pth": (
        lambda: (changed("whole.pth", lambda sd: None)(), halved("whole.pth", "cut.pth")()),
        upscale(model="cut.pth"),
        1,
        "cut.pth: a damaged or truncated PyTorch file",
    ),
    "truncated .safetensors": (
        halved("model.safetensors", "cut.safetensors"),
        upscale(model="cut.safetensors"),
        1,
        "cut.safetensors: a damaged or truncated .safetensors file",
    ),
    "text named .pth": (
        written("page.pth", "<html>not found</html>"),
        upscale(model="page.pth"),
        1,
        "page.pth: not a check",
    ),
    "empty .safetensors": (written("e.safetensors", b""), upscale(model="e.safetensors"), 1, "e.safetensors: .* empty"),
    "weights not finite": (
        changed("nan.pth", lambda sd: sd[WEIGHT].fill_(float("nan"))),
        upscale(model="nan.pth"),
        1,
        "nan.pth: NaN or infinite weights in 1 tensors: 'body.0.0.attn.to_qkv.weight'",
    ),
    "plain or Plus": (
        lambda: torch.save(build_model("sst-light").state_dict(), "which.pth"),
        upscale(model="which.pth"),
        1,
        "which.pth: this may be sst-light or sst-light-plus, .*: pass --arch",
    ),
    "wrong arch": (
        lambda: torch.save(build_model("sst-light").state_dict(), "light.pth"),
        upscale("--arch", "sst-plus", model="light.pth"),
        1,
        "light.pth: its shapes contradict 'sst-plus', .*dim 48 instead of 180",
    ),
    "unknown arch": (
        nothing,
        upscale("--arch", "swinir", model="model.safetensors"),
        2,
        "unknown architecture 'swinir'",
    ),
    "missing key": (changed("m.pth", lambda sd: sd.pop(WEIGHT)), upscale(model="m.pth"), 1, f"1 missing: '{WEIGHT}'"),
    "unexpected key": (
        changed("m.pth", lambda sd: sd.update(more=torch.zeros(1))),
        upscale(model="m.pth"),
        1,
        "1 unexpected: 'more'",
    ),
    "misshapen key": (
        changed("m.pth", lambda sd: sd.update({WEIGHT: torch.zeros(7, 12, 1, 1)})),
        upscale(model="m.pth"),
        1,
        rf"1 misshapen: '{WEIGHT}' \(7, 12, 1, 1\) instead of",
    ),
    "keys of another architecture": (
        lambda: save_file({"conv_first.weight": torch.zeros(64, 3, 3, 3)}, "esrgan.safetensors"),
        upscale(model="esrgan.safetensors"),
        1,
        "esrgan.safetensors: keys of no architecture that flashrib knows .*'conv_first.weight'",
    ),
    "wrong scale": (
        nothing,
        upscale("--scale", "4", model="model.safetensors"),
        1,
        "model.safetensors: trained for x2, .* x4",
    ),
    "impossible scale": (
        nothing,
        upscale("--scale", "7", model="model.safetensors"),
        1,
        "model.safetensors: trained for x2, .* x7",
    ),
}
