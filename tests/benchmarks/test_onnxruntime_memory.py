"""The calculation of ONNX Runtime's arena, on a case by hand."""

from benchmarks.onnxruntime_memory import Arena, arena_of

NODES = [
    ([], ["large"]),
    (["large"], ["larger"]),
    (["larger"], ["small"]),
    (["small"], ["middle"]),
    (["middle"], ["small2"]),
    (["small2"], ["large2"]),
    (["large2"], ["larger2"]),
    (["larger2"], ["last"]),
]
SIZES = {
    "large": 4096,
    "larger": 4096,
    "small": 1024,
    "middle": 3072,
    "small2": 1024,
    "large2": 4096,
    "larger2": 4096,
    "last": 1024,
}


def test_kept_buffers_are_no_memory_for_other_sizes() -> None:
    """Two large maps, whose memory all others get too unless their buffers are kept for the large ones to come."""
    kept, _ = arena_of(NODES, SIZES, reuse=True)
    free, most = arena_of(NODES, SIZES, reuse=False)
    assert kept == 4096 + 4096 + 1024 + 3072
    assert free == most == 4096 + 4096


def test_chunks_are_split_and_merged() -> None:
    arena = Arena()
    arena.take("a", 4096)
    arena.give("a")
    arena.take("b", 1024)  # half of it or less: the rest stays free
    arena.take("c", 2048)
    assert arena.regions == [[("b", 1024), ("c", 3072)]]  # more than half of what was left
    arena.give("c")
    arena.give("b")
    assert arena.regions == [[(None, 4096)]]
    assert arena.size == 4096
