"""Runs models on pictures: sessions, tiles, pictures in and out, metrics, the command line. Needs neither torch nor onnx."""
