"""Nested phases become one number; Ctrl-C ends a build cleanly."""

import os
import signal
import time
from typing import Any

import pytest

from flashrib.export.engine.progress import Phases, postponed_interrupt, progress_monitor


def test_nested_phases() -> None:
    phases = Phases()
    phases.start("build", None, 4)
    phases.step("build", 0)
    assert phases.fraction == 0.25
    phases.start("tactics", "build", 2)
    phases.step("tactics", 0)
    assert phases.fraction == 0.375
    phases.start("nodes", "tactics", 5)
    phases.step("nodes", 4)
    assert phases.fraction == 0.5
    phases.finish("nodes")
    phases.step("tactics", 1)
    phases.finish("tactics")
    phases.step("build", 1)
    assert phases.fraction == 0.5
    phases.finish("build")
    assert phases.fraction == 1


def test_it_never_falls() -> None:
    phases = Phases()
    phases.start("build", None, 2)
    phases.step("build", 1)
    phases.start("build", None, 8)
    phases.step("build", 0)
    phases.step("unknown", 3)
    phases.finish("unknown")
    assert phases.fraction == 1


def test_monitor() -> None:
    class Trt:
        class IProgressMonitor:
            pass

    reports: list[tuple[float, str]] = []
    answers = iter([False, True])
    monitor: Any = progress_monitor(Trt, lambda *report: reports.append(report), lambda: next(answers))
    monitor.phase_start("build", None, 2)
    assert monitor.step_complete("build", 0) is True
    assert monitor.step_complete("build", 1) is False
    monitor.phase_finish("build")
    assert reports == [(0.5, "build"), (1, "build"), (1, "build")]


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    before = signal.getsignal(signal.SIGINT)
    reached = False
    with pytest.raises(KeyboardInterrupt), postponed_interrupt() as pressed:  # noqa: PT012
        assert not pressed()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        reached = pressed()
    assert reached
    assert signal.getsignal(signal.SIGINT) is before
