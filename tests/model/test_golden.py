"""The networks compute what the official code computes, on the official vectors."""

import pytest
import torch

from flashrib.model.architectures.registry import network_from_config
from flashrib.model.fold import fold
from tests.official import NETWORKS, PIPELINES, load_vector, max_abs

BOUNDS = [(torch.float32, 1e-4), (torch.float64, 1e-9)]


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS, ids=["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, dtype: torch.dtype, bound: float) -> None:
    vector = load_vector(name)
    network = network_from_config(vector.config)
    network.load_state_dict(vector.state_dict)
    with torch.no_grad():
        output = network.to(dtype).eval()(vector.tensors["input"].to(dtype))
    assert max_abs(output, vector.tensors["output_f64"]) <= bound


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS, ids=["float32", "float64"])
@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline(name: str, dtype: torch.dtype, bound: float) -> None:
    vector = load_vector(name)
    network = network_from_config(vector.config)
    network.load_state_dict(vector.state_dict)
    with torch.no_grad():
        output = network.to(dtype).eval().upscale(vector.tensors["input"].to(dtype))
    assert max_abs(output, vector.tensors["output_f64"]) <= bound


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS, ids=["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS + PIPELINES)
def test_folded(name: str, dtype: torch.dtype, bound: float) -> None:
    vector = load_vector(name)
    network = network_from_config(vector.config)
    network.load_state_dict(vector.state_dict)
    folded = fold(network.eval(), dtype=dtype)
    # A deployed ESC is the whole pipeline; the vectors of the bare network are met by `reconstruct`.
    run = folded if name in PIPELINES else folded.reconstruct
    with torch.no_grad():
        output = run(vector.tensors["input"].to(dtype))
    assert max_abs(output, vector.tensors["output_f64"]) <= bound
