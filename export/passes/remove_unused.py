"""Nodes, initialisers and value descriptions that no output depends on are removed."""

from onnx import ModelProto


def remove_unused(model: ModelProto) -> None:
    """Walk back from the outputs and keep what is met."""
    graph = model.graph
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            kept.append(node)
            used.update(node.input)
    produced = {name for node in kept for name in node.output}
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    values = [value for value in graph.value_info if value.name in produced]
    for field, items in ((graph.node, kept[::-1]), (graph.initializer, initializers), (graph.value_info, values)):
        del field[:]
        field.extend(items)
