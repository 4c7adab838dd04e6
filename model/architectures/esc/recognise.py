"""ESC-RIB checkpoints: sizes from shapes, and official file names."""

from flashrib.model.architectures import upscaler
from flashrib.model.architectures.esc import ARCHITECTURE
from flashrib.model.architectures.esc.config import NO_FFN
from flashrib.model.architectures.reader import Layout, Reader
from flashrib.model.architectures.upscaler import RecognisedUpscaler
from flashrib.model.state_dict import Checkpoint

KERNEL = "plk_filter"


def recognise(checkpoint: Checkpoint) -> RecognisedUpscaler:
    """See `flashrib.model.architectures.upscaler.recognise`."""
    return upscaler.recognise(checkpoint, ARCHITECTURE, _layout)


def file_name(stem: str) -> tuple[str, int] | None:
    """Preset and scale of ESCRIB_DFLIP_X3, esc-rib-x2, ..."""
    match = upscaler.file_name(stem, "esc-?rib")
    return None if match is None else ("esc-rib", int(match[1]))


def _layout(read: Reader) -> Layout:
    dim = read.shape("proj.weight", 4)[0]
    heads, rank = read.heads_and_rank("blocks.0.attn", dim)
    pdim, _, _, side = read.shape(KERNEL, 4)
    if not 2 <= pdim <= dim:
        raise read.refuse(f"{pdim} channels in the large-kernel convolution ({KERNEL}) out of {dim}")
    if side % 2 == 0:
        raise read.refuse(f"a kernel of even side {side} ({KERNEL})")
    convolutional = read.count("blocks.0.pconvs.{}.aggr.weight")
    return {
        "dim": dim,
        "pdim": pdim,
        "kernel_size": side,
        "blocks": read.count("blocks.{}.attn.to_q"),
        "conv_blocks": convolutional,
        "heads": heads,
        "rank": rank,
        "ffn_dim": read.shape("blocks.0.convffns.0.proj.weight", 4)[0] if convolutional else NO_FFN,
        **read.rib_and_gate("blocks.0.attn"),
        "use_ln": "blocks.0.lns.0.weight" in read.state_dict,
    }
