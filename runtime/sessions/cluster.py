"""A session whose devices are on other machines: one process of a Ray cluster for each.

Each process opens the same `SessionSpec` and is one worker of this session. So whatever runs on a session, tiles, pictures, videos, runs on
a cluster as it is, in order and with the same result. Ray restarts a process that died and sends its tiles again.
"""

import dataclasses
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flashrib.runtime.artifacts.files import sha256_of
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import DeviceFailedError, FlashribError, MissingPackageError, SessionError
from flashrib.runtime.sessions.base import SessionBase
from flashrib.runtime.sessions.protocol import Batch, Pixels, Session, TileWorker
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.sessions.table import choose_session

AHEAD = 2
"""Tiles that are with a process, so that the next is there when one is done."""
RETRIES = 3
"""How often a tile is sent again after its process died."""


@dataclasses.dataclass(frozen=True)
class ClusterOptions:
    """Which cluster, and how much of it.

    Attributes:
        address: "auto": the cluster that this machine belongs to; "local": one made for this session; or "HOST:PORT" of a cluster.
        workers: processes; None: one for each GPU where the device is a GPU, otherwise one for each machine.
        open_seconds: how long to wait until the processes have opened the model.
    """

    address: str = "auto"
    workers: int | None = None
    open_seconds: float = 120.0


class ClusterSession(SessionBase):
    """See the module; a context manager, whose end frees the processes.

    Args:
        spec: what each process opens; the model file is at the same place on all machines, such as in a shared folder.
        options: see `ClusterOptions`.

    Raises:
        MissingPackageError: Ray is not installed.
        SessionError: there is no such cluster, or it has no room.
        FlashribError: whatever `SessionSpec.open` raises on the machines; a model file that differs from the one here.
    """

    def __init__(self, spec: SessionSpec, options: ClusterOptions | None = None) -> None:
        options = options or ClusterOptions()
        self._ray = _require_ray()
        self._started = _connect(self._ray, options.address)
        self._actors: list[Any] = []
        try:
            path, kind = choose_session(spec.model, spec.kind)
            spec = dataclasses.replace(spec, model=os.path.abspath(path), kind=kind)
            gpu = spec.device.startswith("cuda")
            count = options.workers or _places(self._ray, gpu)
            needs: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if gpu else {"num_cpus": 1}
            actor = self._ray.remote(max_restarts=-1, max_task_retries=RETRIES, **needs)(_Process)
            digest = sha256_of(path)
            self._actors = [actor.remote(spec, digest) for _ in range(count)]
            waiting = [actor.describe.remote() for actor in self._actors]
            ready, late = self._ray.wait(waiting, num_returns=count, timeout=options.open_seconds)
            if late:
                raise SessionError(
                    f"the cluster opened {len(ready)} of {count} processes within {options.open_seconds:g} s: ask for fewer, or see"
                    " ray status for what it has"
                )
            described = [_unwrapped(self._ray, answer) for answer in waiting]
        except BaseException:
            self.close()
            raise
        self.info: ModelInfo = described[0][0]
        self._most = min((most for _, most in described if most is not None), default=None)
        self._workers = tuple(_Remote(self._ray, actor, self.info.scale) for actor in self._actors)

    @property
    def workers(self) -> Sequence[TileWorker]:
        """One for each process that has not failed for good."""
        return [worker for worker in self._workers if not worker.failed]

    def most_pixels(self) -> int | None:
        """Return what fits into the smallest device."""
        return self._most

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        """See `Session.run`; on the first process."""
        result: Batch = _unwrapped(self._ray, self._actors[0].run.remote(batch, noise))
        return result

    def close(self) -> None:
        """End the processes; a cluster that was made for this session ends too."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._started:
            self._ray.shutdown()
            self._started = False


class _Process:
    """Runs on a machine of the cluster, in a process of its own."""

    def __init__(self, spec: SessionSpec, digest: str) -> None:
        self._failed: FlashribError | None = None
        self._session: Session | None = None
        try:
            assert spec.model is not None
            if not Path(spec.model).is_file():
                raise SessionError(
                    f"{spec.model}: is not on all machines of the cluster: put it into a folder that they share"
                )
            if sha256_of(Path(spec.model)) != digest:
                raise SessionError(
                    f"{spec.model}: another file lies there on a machine of the cluster: copy this one to all"
                )
            self._session = spec.open()
        except FlashribError as error:
            self._failed = error  # an error in __init__ would make Ray start the process again and again

    def describe(self) -> tuple[ModelInfo, int | None]:
        """Return what the model is, and how many pixels a tile may have."""
        session = self._opened()
        return session.info, session.most_pixels()

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        """Run a batch."""
        return self._opened().run(batch, noise)

    def tile(self, pixels: Pixels, rows: slice, columns: slice, where: str, noise: Batch | None = None) -> Pixels:
        """Upscale a tile and return what of it is kept, in the type of its pixels."""
        session = self._opened()
        (worker, *_) = session.workers
        shape = (rows.stop - rows.start, columns.stop - columns.start, *pixels.shape[2:])
        target = np.empty(shape, pixels.dtype)
        try:
            worker.submit(pixels, rows, columns, where, *(() if noise is None else (noise,)))
            worker.collect(target)
        except BaseException:
            worker.abandon()
            raise
        return target

    def _opened(self) -> Session:
        if self._failed is not None:
            raise self._failed
        assert self._session is not None
        return self._session


class _Remote:
    """The worker of this session that stands for a process; follows `TileWorker`."""

    ahead = AHEAD

    def __init__(self, ray: Any, actor: Any, scale: int) -> None:
        self._ray, self._actor, self._scale = ray, actor, scale
        self._in_work: deque[Any] = deque()
        self.failed = False

    def submit(self, pixels: Pixels, rows: slice, columns: slice, where: str, noise: Batch | None = None) -> None:
        """See `TileWorker.submit`."""
        height, width = pixels.shape[:2]
        rows, columns = slice(*rows.indices(height * self._scale)), slice(*columns.indices(width * self._scale))
        self._in_work.append(self._actor.tile.remote(np.ascontiguousarray(pixels), rows, columns, where, noise))

    def collect(self, target: Pixels) -> None:
        """See `TileWorker.collect`."""
        try:
            target[...] = _unwrapped(self._ray, self._in_work.popleft())
        except DeviceFailedError:
            self.failed = True
            raise

    def abandon(self) -> None:
        """See `TileWorker.abandon`."""
        for task in self._in_work:
            self._ray.cancel(task)
        self._in_work.clear()


def _require_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError("ray", "a cluster", "cluster") from error
    return ray


def _connect(ray: Any, address: str) -> bool:
    """Join a cluster, if this process is in none yet; returns whether it did."""
    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False}
    try:
        if address == "local":
            ray.init(address="local", **quiet)
        else:
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise SessionError(
            f"--cluster {address}: no cluster answers there ({reason}): start one with ray start --head, or use --cluster local"
        ) from error
    return True


def _places(ray: Any, gpu: bool) -> int:
    """Return how many processes the cluster has room for."""
    found = int(ray.cluster_resources().get("GPU", 0)) if gpu else len(ray.nodes())
    if not found:
        raise SessionError("--cluster: the cluster has no GPU: use --device cpu, or add a machine that has one")
    return found


def _unwrapped(ray: Any, task: Any) -> Any:
    """Return the result of a task; errors of ours come as they were raised there."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FlashribError):
            raise error.cause from error
        raise SessionError(f"a machine of the cluster failed: {error.cause!r}") from error
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())
        raise DeviceFailedError(
            f"a process of the cluster died {RETRIES + 1} times at the same tile: {reason}"
        ) from error
