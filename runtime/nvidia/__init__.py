"""What building and running engines both need of NVIDIA's driver and of TensorRT."""
