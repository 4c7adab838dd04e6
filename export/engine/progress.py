"""TensorRT's nested build phases as one number that only grows."""

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flashrib.runtime.progress import PhaseProgress


@dataclasses.dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """The phases of a build, a tree: a phase under another one fills a step of it.

    Attributes:
        fraction: part of the build that is done, 0..1; never falls, though TensorRT learns of further steps on the way.
    """

    def __init__(self) -> None:
        self.fraction = 0.0
        self._open: dict[str, _Phase] = {}

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Open a phase of so many steps."""
        self._open[name] = _Phase(parent, max(1, steps))

    def step(self, name: str, step: int) -> None:
        """Note that step number `step`, from 0, of a phase is complete."""
        phase = self._open.get(name)
        if phase is not None:
            phase.done = min(step + 1, phase.steps)
            self._update()

    def finish(self, name: str) -> None:
        """Close a phase."""
        phase = self._open.get(name)
        if phase is not None:
            phase.done = phase.steps
            self._update()
            del self._open[name]

    def _update(self) -> None:
        roots = [name for name, phase in self._open.items() if phase.parent not in self._open]
        if roots:
            self.fraction = max(self.fraction, self._fraction(roots[0]))

    def _fraction(self, name: str) -> float:
        phase = self._open[name]
        inner = max((self._fraction(child) for child, p in self._open.items() if p.parent == name), default=0.0)
        return min(1.0, (phase.done + inner) / phase.steps)


def progress_monitor(trt: Any, report: PhaseProgress, cancelled: Callable[[], bool]) -> Any:
    """Return a progress monitor for TensorRT's builder.

    Args:
        trt: module of a flavour.
        report: called with the fraction done and the current phase.
        cancelled: asked after every step; True ends the build.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the module is only known at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases = Phases()
            self._lock = threading.Lock()  # TensorRT calls from several threads

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._phases.step(phase_name, step)
                report(self._phases.fraction, phase_name)
            return not cancelled()

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)
                report(self._phases.fraction, phase_name)

    return Monitor()


@contextmanager
def postponed_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed; KeyboardInterrupt is raised at the end of the block.

    An exception out of a callback would have to pass through TensorRT, which does not survive that.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed.is_set():
        raise KeyboardInterrupt
