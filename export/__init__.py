"""Deployment form -> ONNX."""
