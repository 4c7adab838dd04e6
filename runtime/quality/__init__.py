"""How good a result is: metrics, evaluation, parity with PyTorch."""
