"""The recipe of the classifier of digits in tests/golden: a Fibottention ViT on the digits that scikit-learn ships.

    python -m benchmarks.digits OUT.safetensors [--mask zero_logit] [--epochs N]

1797 pictures of 8x8 pixels, enlarged to 16x16 by Pillow's bicubic; every fifth is a test picture (360). Patches of 2 pixels, so 64 tokens;
3 heads of 16 channels, 4 blocks, offsets shuffled by depth. A demonstration that the product works, no claim of accuracy.
"""

import argparse

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flashrib.model.architectures.fibottention_vit.config import FibottentionConfig
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.checkpoint import save_safetensors
from flashrib.model.training.classify import FitOptions, accuracy, begin, fit

CONFIG = FibottentionConfig(
    "fibottention-custom",
    48,
    4,
    3,
    patch=2,
    grid=8,
    classes=10,
    hidden=96,
    mean=(0.3, 0.3, 0.3),
    std=(0.38, 0.38, 0.38),
)


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures (n, 3, 16, 16) uint8 and labels (n) for training, then for testing."""
    from sklearn.datasets import load_digits

    data = load_digits()
    small = np.rint(data.images * (255 / 16)).astype(np.uint8)
    large = np.stack([np.asarray(Image.fromarray(x).resize((16, 16), Image.Resampling.BICUBIC)) for x in small])
    pictures = torch.from_numpy(large)[:, None].expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(data.target).long()
    test = torch.arange(len(labels)) % 5 == 0
    return pictures[~test], labels[~test], pictures[test], labels[test]


def main() -> None:
    """Train, report the accuracy after every epoch, save."""
    import dataclasses

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--mask", choices=("neg_inf", "zero_logit", "dense"), default="neg_inf")
    parser.add_argument("--epochs", type=int, default=25)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    network = network_from_config(dataclasses.replace(CONFIG, mask_mode=arguments.mask))
    x, y, test_x, test_y = digits()
    options = FitOptions(epochs=arguments.epochs, batch=32, lr=2e-3, ema=0.99, shift=1)
    state = begin(network, options)
    for epoch in fit(state, x, y, options):
        with state.averaged():
            share = accuracy(network, test_x, test_y)
        print(
            f"epoch {epoch.number}: loss {epoch.loss:.4f}, {share:.2%} of the test pictures, {epoch.seconds:.0f} s",
            flush=True,
        )
    with state.averaged():
        save_safetensors(arguments.output, network.eval(), {"flashrib.recipe": "benchmarks/digits.py"})


if __name__ == "__main__":
    main()
