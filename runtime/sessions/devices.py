"""Names of devices for PyTorch: "auto", "cpu", "cuda", "cuda:1", "cuda:0,cuda:1"."""

import re

from flashrib.runtime.errors import UsageError

_NAMES = re.compile(r"auto|cpu|cuda|cuda:[0-9]{1,3}(,cuda:[0-9]{1,3})*")


def check_device(text: str) -> str:
    """Return `text` where it has the form of a device, or of several GPUs.

    Raises:
        UsageError: it has not, or names a GPU twice.
    """
    if not _NAMES.fullmatch(text):
        raise UsageError(f"device {text!r} is not one of auto, cpu, cuda, cuda:0, or several such as cuda:0,cuda:1")
    names = text.split(",")
    if len(set(names)) < len(names):
        raise UsageError(f"device {text!r} names a GPU twice")
    return text


def choose_devices(text: str) -> tuple[str, ...]:
    """Return ("cpu",), or the GPUs as ("cuda:0", ...).

    Args:
        text: "auto" (the first GPU if there is one, otherwise the CPU), "cpu", "cuda" (the first GPU), "cuda:1", "cuda:0,cuda:1".

    Raises:
        UsageError: no such device in general, or on this machine.
    """
    import torch

    check_device(text)
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "cpu" or (text == "auto" and not there):
        return ("cpu",)
    if not there:
        raise UsageError(f"--device {text}: PyTorch sees no CUDA GPU here; use --device cpu")
    if text in ("auto", "cuda"):
        return ("cuda:0",)
    names = tuple(text.split(","))
    for name in names:
        if int(name.removeprefix("cuda:")) >= there:
            seen = "cuda:0 alone" if there == 1 else f"cuda:0 to cuda:{there - 1}"
            raise UsageError(f"--device {text}: there is no {name}; PyTorch sees {seen} here")
    return names
