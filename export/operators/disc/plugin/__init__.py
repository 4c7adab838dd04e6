"""CLEAR's attention as a plugin of TensorRT, for one size of picture: its lists of blocks are constants of the engine."""
