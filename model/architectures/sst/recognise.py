"""SST checkpoints: sizes from shapes, and official file names."""

from flashrib.model.architectures import upscaler
from flashrib.model.architectures.reader import Layout, Reader
from flashrib.model.architectures.sst import ARCHITECTURE
from flashrib.model.architectures.sst.config import PRESETS
from flashrib.model.architectures.upscaler import RecognisedUpscaler
from flashrib.model.state_dict import Checkpoint


def recognise(checkpoint: Checkpoint) -> RecognisedUpscaler:
    """See `flashrib.model.architectures.upscaler.recognise`."""
    return upscaler.recognise(checkpoint, ARCHITECTURE, _layout)


def file_name(stem: str) -> tuple[str, int] | None:
    """Preset and scale of SSTlight_DFLIP_X2, SST_Plus_DF2K_X4, sst-light-x2, ..."""
    match = upscaler.file_name(stem, "sst-?(light|large|xl)?(-plus)?")
    if match is None:
        return None
    size, plus, scale = match.groups()
    name = "sst" + (f"-{size}" if size else "") + (plus or "")
    return (name, int(scale)) if name in PRESETS else None


def _layout(read: Reader) -> Layout:
    dim = read.shape("proj.weight", 4)[0]
    layers = read.count("body.0.{}.attn.to_q")
    heads, ranks = zip(*(read.heads_and_rank(f"body.0.{i}.attn", dim) for i in range(layers)), strict=True)
    return {
        "dim": dim,
        "heads": heads,
        "ranks": ranks,
        "blocks": read.count("body.{}.0.attn.to_q"),
        "ffn_dim": read.shape("body.0.0.ffn.proj.weight", 4)[0],
        **read.rib_and_gate("body.0.0.attn"),
    }
