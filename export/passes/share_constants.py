"""Constants of equal type, shape and value are stored once."""

from onnx import ModelProto

from flashrib.export.passes.graph import rename_inputs


def share_constants(model: ModelProto) -> None:
    """Keep the first of every group of equal initialisers, and let all nodes read it."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    replaced: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if not tensor.raw_data:  # small ones may be stored as typed lists; nothing is gained there
            continue
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        if first.setdefault(key, tensor.name) != tensor.name:
            replaced[tensor.name] = first[key]
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in replaced]
    rename_inputs(model, replaced)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
