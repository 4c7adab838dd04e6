"""How photographs become bad, on tensors of any device, seeded: blur, resizing, noise, JPEG, twice over.

`kernels.py` makes blur kernels, `operations.py` and `jpeg.py` apply one degradation with given parameters, `pipeline.py` draws the
parameters. Source: Wang, Xie, Dong, Shan, "Real-ESRGAN", 2021, with the settings of SST-Real.
"""

from flashrib.model.training.degradations.pipeline import DEGRADATIONS, Degradation, SecondOrder

__all__ = ["DEGRADATIONS", "Degradation", "SecondOrder"]
