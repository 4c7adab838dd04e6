"""OpenVINO's provider of ONNX Runtime on the CPU beside the CPU provider of the same package: processor time and error.

    python benchmarks/openvino.py write FOLDER [--networks sst-light:2 sst-plus:4:1 ...] [--sizes 192x192 ...]
    OTHER/bin/python benchmarks/openvino.py run FOLDER

The first writes an ONNX file of one size for each network (random weights, fp32, attention in standard operators), a random picture, and
the result of PyTorch in float32; it needs flashrib with PyTorch. The second needs `onnxruntime-openvino` and numpy alone, so an
environment of its own, since that package and `onnxruntime` overwrite each other. A third number, as in sst-plus:4:1, is of blocks, all of
which are alike: in a file of one size with attention in standard operators, sst-plus needs 2 GB of position bias for each block.

A time is the processor time of the whole process (user and system, all threads) during one run, the median of `--rounds`; the two
providers take turns, after a run each that does not count. Wall time says nothing where others use the cores, and processor time little
enough: shares, not seconds, are worth comparing. Threads of the CPU provider do not spin while they wait. Errors are relative RMS.
"left": nodes that OpenVINO left to the CPU provider.
"""

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

PROVIDERS = ("CPU", "OpenVINO")


def write(folder: Path, networks: list[str], sizes: list[str]) -> None:
    """Write NAME.onnx and NAME.npz of each network."""
    import torch

    from flashrib.export.options import ExportOptions
    from flashrib.export.to_file import export_file
    from flashrib.model.architectures.registry import network_from_config, preset

    folder.mkdir(parents=True, exist_ok=True)
    for text, size in zip(networks, sizes, strict=True):
        name, scale, *blocks = text.split(":")
        height, width = map(int, size.split("x"))
        torch.manual_seed(0)
        config = preset(name, int(scale))
        network = network_from_config(dataclasses.replace(config, blocks=int(blocks[0])) if blocks else config)
        network.initialise()
        network.eval()
        picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            exact = network.reference(picture)
        label = f"{name} x{scale}{f' {blocks[0]} block' if blocks else ''} {size}"
        options = ExportOptions(precision="fp32", tile=(height, width), attention="standard")
        export_file(network, folder / f"{label}.onnx", options)
        np.savez(folder / f"{label}.npz", picture=picture.numpy(), exact=exact.numpy())
        print(label, flush=True)


def run(folder: Path, rounds: int) -> None:
    """Print a row of the table for each network of a folder."""
    import onnxruntime

    print("onnxruntime", onnxruntime.__version__, onnxruntime.get_available_providers())
    for path in sorted(folder.glob("*.onnx")):
        given = np.load(path.with_suffix(".npz"))
        feed = {"input": given["picture"]}
        sessions, results, times = {}, {}, dict[str, list[float]]()
        for name in PROVIDERS:
            sessions[name] = opened(onnxruntime, path, name)
            (results[name],) = sessions[name].run(None, feed)
        for _ in range(rounds):
            for name, session in sessions.items():
                before = os.times()
                session.run(None, feed)
                after = os.times()
                times.setdefault(name, []).append(after.user + after.system - before.user - before.system)
        rows = []
        for name, session in sessions.items():
            parts = session.get_provider_graph_assignment_info()
            left = sum(len(part.get_nodes()) for part in parts if part.ep_name != f"{name}ExecutionProvider")
            seconds = sorted(times[name])[rounds // 2]
            rows.append(f"{name} {seconds:.2f} s, error {error(given['exact'], results[name]):.1e}, {left} left")
        between = error(*results.values())
        print(f"{path.stem}: {'; '.join(rows)}; between the two {between:.1e}", flush=True)
        del sessions, session


def opened(onnxruntime: Any, path: Path, name: str) -> Any:
    """A session on a provider, which ONNX Runtime gives the CPU provider too, for what it leaves."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    provider = f"{name}ExecutionProvider"
    session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise SystemExit(f"{provider} did not start: install onnxruntime-openvino in an environment of its own")
    return session


def error(wanted: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
    """RMS of the difference over that of `wanted`."""
    difference = found.astype(np.float64) - wanted
    return float(np.sqrt(np.mean(difference**2) / np.mean(wanted.astype(np.float64) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["write", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="+", default=["sst-light:2", "esc-rib:4", "sst-plus:4:1"])
    parser.add_argument("--sizes", nargs="+", default=["192x192", "128x128", "96x96"], help="one for each network")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.step == "write":
        write(arguments.folder, arguments.networks, arguments.sizes)
    else:
        run(arguments.folder, arguments.rounds)


if __name__ == "__main__":
    main()
