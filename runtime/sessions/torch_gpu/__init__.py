"""The fast session on CUDA GPUs, through PyTorch and our kernels."""
