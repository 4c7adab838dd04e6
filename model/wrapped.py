"""Where the parameters lie in a checkpoint: programs nest them in dictionaries and put names in front of the keys.

Only what surely is such a wrapping is taken off; whether the rest are the keys of a network is decided by comparing every key and shape.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

# Dictionaries within the file, averaged weights before those of the last step: BasicSR, timm, Lightning, KAIR, Real-ESRGAN ...
NESTS = (
    "params_ema",
    "params-ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net_g",
    "netG",
    "generator",
    "network",
    "net",
    "weights",
)
# What PyTorch itself puts in front of every key: DataParallel and AveragedModel, torch.compile.
WRAPPERS = ("module.", "_orig_mod.")
# What AveragedModel counts; no parameter.
COUNTERS = ("n_averaged",)


def below(content: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    """Return what a user calls `key`: a dictionary within others, with dots between their names, or the keys that begin with it.

    Raises:
        KeyError: there is nothing of this name.
    """
    name, rest = key, ""
    while name:
        inner = content.get(name)
        if isinstance(inner, Mapping):
            return below(inner, rest) if rest else inner
        name, _, last = name.rpartition(".")
        rest = f"{last}.{rest}".rstrip(".")
    prefix = f"{key}."
    if inner := {k.removeprefix(prefix): v for k, v in content.items() if isinstance(k, str) and k.startswith(prefix)}:
        return inner
    raise KeyError(key)


def places(content: Mapping[Any, Any], depth: int = 3) -> list[str]:
    """Return what `below` may be asked for: names of the dictionaries that hold tensors, or what stands in front of several keys."""
    found: list[str] = []
    for name, inner in content.items():
        if isinstance(inner, Mapping) and isinstance(name, str):
            if any(isinstance(value, Tensor) for value in inner.values()):
                found.append(name)
            elif depth > 1:
                found += [f"{name}.{place}" for place in places(inner, depth - 1)]
    fronts = [
        k.partition(".")[0] for k, v in content.items() if isinstance(k, str) and "." in k and isinstance(v, Tensor)
    ]
    return found or sorted({front for front in fronts if fronts.count(front) > 1})


def innermost(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return the dictionary that holds the tensors: `content` itself, or one within it."""
    if any(isinstance(value, Tensor) for value in content.values()):
        return content
    for name in NESTS:
        inner = content.get(name)
        if isinstance(inner, Mapping) and inner:
            found = innermost(inner)
            if any(isinstance(value, Tensor) for value in found.values()):
                return found
    return content


def without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what PyTorch puts in front of the keys, as often as it is there, and leave its counters out."""
    kept = {key: value for key, value in tensors.items() if key not in COUNTERS}
    while prefix := next((name for name in WRAPPERS if kept and all(key.startswith(name) for key in kept)), None):
        kept = {key.removeprefix(prefix): value for key, value in kept.items()}
    return kept


def readings(tensors: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """Yield the tensors as they are, then under shorter keys: without the name of a wrapping in front, one after the other.

    Where some keys have such a name and others have not, the others belong to something else, such as the discriminator of a GAN, or
    the weights that are not averaged. No reading is preferred to an earlier one: "model." belongs to the keys of some networks.
    """
    while True:
        yield tensors
        first = {key.partition(".")[0] for key in tensors if "." in key}
        name = next((name for name in NESTS if name in first), None)
        if name is None:
            return
        inner = {key.removeprefix(f"{name}."): v for key, v in tensors.items() if key.startswith(f"{name}.")}
        tensors = without_wrappers(inner)
