"""Who may import whom: arrows point down, as in docs/architecture.md, and no modules import one another in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("runtime", "model", "export", "calibration")
    for path in sorted((ROOT / folder).rglob("*.py"))
}

# Room -> what its modules may import beside the room itself. Of several rooms that hold a module, the longest name counts.
ARROWS = {
    "runtime": "runtime.lazy",  # the public names, which are loaded when they are used
    "runtime.errors": "",
    "runtime.lazy": "",
    "runtime.noise": "",
    "runtime.overlap": "",
    "runtime.progress": "",
    "runtime.stopping": "",
    "runtime.schema": "",
    "runtime.artifacts.files": "",
    "runtime.nvidia": "",
    "runtime.pictures": "runtime.artifacts.files",
    "runtime.artifacts": "runtime.nvidia",
    "runtime.sessions": "runtime.nvidia runtime.artifacts runtime.pictures",
    "runtime.tiling": "runtime.artifacts runtime.pictures runtime.sessions",
    "runtime.video": "runtime.pictures",
    "runtime.quality": "runtime.artifacts runtime.pictures runtime.sessions runtime.tiling",
    "runtime.quality.metrics": "",
    "runtime.quality.rms": "",
    "runtime.jobs": "runtime.artifacts runtime.pictures runtime.sessions runtime.tiling runtime.video",
    "runtime.cli": "runtime model export calibration",
    "model": "runtime.artifacts.files",
    "model.config": "",
    "model.sizes": "",
    "model.operators": "",
    "model.attention": "model.config model.operators model.sizes",
    "model.training": "model runtime.artifacts.files runtime.artifacts.lock runtime.pictures runtime.quality.metrics",
    "export": "model runtime.artifacts runtime.nvidia runtime.quality.rms runtime.quality.parity_bounds"
    " runtime.sessions.protocol runtime.sessions.onnx_cpu",
    # A package is compiled and tried with what runs it.
    "export.package": "export model runtime.artifacts runtime.quality.rms runtime.sessions",
    # So is a library.
    "export.onnxruntime": "export model runtime.artifacts runtime.nvidia runtime.quality.rms runtime.quality.parity_bounds"
    " runtime.sessions",
    "calibration": "export.save export.passes model.architectures.registry runtime.artifacts runtime.pictures runtime.quality.metrics"
    " runtime.sessions.onnx_cpu",
}
# What everything may import.
BOTTOM = "runtime.errors runtime.lazy runtime.overlap runtime.progress runtime.stopping runtime.schema runtime.noise"
# Only these import more, within functions: a session when it is opened, a command when it runs.
LATER = {"runtime.sessions": "model export.emulate", "runtime.cli": "runtime model export calibration"}


def inside(name: str, rooms: str) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms.split())


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """The modules of flashrib that a module imports, and whether it does so within a function; not what only types need."""

    def walk(node: ast.AST, later: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import | ast.ImportFrom):
                base = f"{child.module}." if isinstance(child, ast.ImportFrom) else ""
                for name in (base + alias.name for alias in child.names):
                    if name.startswith("flashrib."):
                        name = name.removeprefix("flashrib.")
                        yield (name if name in FILES else name.rpartition(".")[0]), later
            yield from walk(child, later or isinstance(child, ast.FunctionDef))

    yield from walk(ast.parse(FILES[module].read_text()), False)


def test_arrows_point_down() -> None:
    wrong = []
    for module in FILES:
        room = max((room for room in ARROWS if inside(module, room)), key=len)
        for target, later in imports(module):
            allowed = f"{room} {BOTTOM} {ARROWS[room]} {LATER.get(room, '') if later else ''}"
            if room == "runtime":  # its folder holds all rooms
                allowed = ARROWS[room]
            if not inside(target, allowed):
                wrong.append(f"{module} -> {target}")
    assert wrong == []


def test_one_operator_or_architecture_does_not_know_another() -> None:
    shared = ("export.operators.plugin",)
    wrong = []
    for rooms in ("model.attention", "model.architectures", "export.operators"):
        folders = [name for name, path in FILES.items() if path.name == "__init__.py" and inside(name, rooms)]
        kinds = [name for name in folders if name.count(".") == 2 and name not in shared]
        for kind in kinds:
            others = " ".join(other for other in kinds if other != kind)
            modules = [module for module in FILES if inside(module, kind)]
            wrong += [f"{m} -> {target}" for m in modules for target, _ in imports(m) if inside(target, others)]
    assert wrong == []


def test_shared_parts_of_networks_know_no_architecture() -> None:
    above = "model.architectures model.checkpoint model.fold model.macs model.training"
    packages = ("model", "model.gpu")  # public names, and which architecture has a form for GPUs
    parts = [m for m in FILES if inside(m, "model") and not inside(m, above) and m not in packages]
    assert [f"{m} -> {target}" for m in parts for target, _ in imports(m) if inside(target, above)] == []


def test_no_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            pytest.fail(f"a circle: {' -> '.join(path[path.index(module) :])} -> {module}")
        if module not in done:
            for target, later in imports(module):
                if not later:
                    visit(target, (*path, module))
            done.add(module)

    for module in FILES:
        visit(module, ())
