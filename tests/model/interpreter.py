"""Triton's interpreter: what runs a file of tests with it, and fixtures that such files take."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.places import ROOT


def run_interpreted(path: str, *arguments: str) -> None:
    """Run a file of tests in a process of its own: Triton decides when it is imported whether it interprets kernels.

    Without plugins, whose imports take seconds.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.fixture(autouse=True)
def language_patched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter searches the whole language for what to replace, at each launch and, though the launch has replaced it, at each call
    of a device function: a third of all time. Here it searches once, and replaces at launches and at a function's first call.
    """
    from triton.language.core import is_builtin
    from triton.runtime import interpreter

    if not (hasattr(interpreter, "_patch_builtin") and hasattr(interpreter, "_patch_attr")):
        return  # another version than 3.6 and its like: slower, and the same

    first_call = interpreter.InterpretedFunction.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.fn not in CALLED:
            CALLED.add(self.fn)
            return first_call(self, *args, **kwargs)
        return self.rewrite()(*args, **kwargs)

    def patch_builtin(package: Any, builder: Any, scope: Any) -> None:
        if package not in BUILTINS:
            BUILTINS[package] = [name for name in dir(package) if is_builtin(getattr(package, name, None))]
        for name in BUILTINS[package]:
            if is_builtin(member := getattr(package, name)):
                interpreter._patch_attr(package, name, member, builder, scope)

    monkeypatch.setattr(interpreter.InterpretedFunction, "__call__", call)
    monkeypatch.setattr(interpreter, "_patch_builtin", patch_builtin)


CALLED: set[Callable[..., Any]] = set()  # device functions; what their first calls replace stays so
BUILTINS: dict[Any, list[str]] = {}  # names of functions of a module or class of Triton's language
