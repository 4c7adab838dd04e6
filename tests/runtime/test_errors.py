"""Every error crosses the boundary of a process as it is."""

import pickle
from collections.abc import Iterator

import pytest

from flashrib.runtime import errors
from flashrib.runtime.errors import FlashribError, MissingPackageError


def everything(kind: type[FlashribError]) -> Iterator[type[FlashribError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from everything(below)


@pytest.mark.parametrize("kind", sorted(everything(FlashribError), key=lambda kind: kind.__name__))
def test_errors_can_be_pickled(kind: type[FlashribError]) -> None:
    error = kind("a.png: it is too large: use a smaller one")
    error.add_note("seen on machine 3")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.exit_code, again.__notes__) == (str(error), error.exit_code, ["seen on machine 3"])


def test_a_missing_package_keeps_its_advice() -> None:
    error = MissingPackageError("onnx", "exporting", "export")
    wanted = "exporting needs the package 'onnx', which is not installed: pip install 'flashrib[export]'"
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == wanted
    assert str(type(error)(f"a.pth: {error}")) == f"a.pth: {wanted}"


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    described = [word for line in str(errors.__doc__).splitlines() for word in line.split() if word.endswith("Error")]
    ours = [kind for kind in everything(FlashribError) if kind.__module__ == errors.__name__]
    assert sorted(described) == sorted(kind.__name__ for kind in ours)
