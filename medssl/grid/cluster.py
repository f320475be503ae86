"""Jobs on the workers of a dask cluster. All of them must see the work folder, and import this medssl.

Each job is bound to one dask worker and done there by a child process, as on one machine: one that dies costs an attempt, and
no dask worker. Where a dask worker itself dies, its jobs are tried again, by another or by the one that takes its place.
"""

from __future__ import annotations

import pickle
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import medssl
from medssl.clusters import connect
from medssl.errors import GridError
from medssl.grid.board import Board
from medssl.grid.job import Job, Outcome, Work
from medssl.grid.processes import GRACE, Worker
from medssl.grid.slots import visible
from medssl.training.stop import StopFlag

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE = 120.0
"""Seconds that jobs wait for a worker that can do them."""
IDLE = 60.0
"""Seconds after which a child without a job ends: its command may be gone."""
_POLL = 0.1  # seconds until tasks and the stop flag are looked at again
_LOOK = 1.0  # seconds until workers are looked at again
_FETCH = 30.0  # seconds for a result that is there


@dataclass(frozen=True)
class Slot:
    """A place for one job at a time on a dask worker: one of its threads, which has a child process."""

    address: str
    number: int
    gpus: int  # that the dask worker offers
    has_gpu: bool


def run_on_cluster(work: Work, board: Board, address: str, stop: StopFlag, *, parallel: int) -> None:
    """Do what is on the board on the dask cluster of a scheduler, until nothing is left or `stop` is set.

    A dask worker does as many jobs at once as it has threads; of jobs that need a GPU `parallel` for each GPU that it offers
    (`--resources GPU=1`). Where it offers none its children see no GPU. After a stop, what children finish within GRACE seconds
    still counts.

    Raises:
        GridError: see `medssl.clusters.connect`; for PATIENCE seconds there was no worker for what is left; the scheduler has gone;
            a child could not be started.
    """
    with connect(address, GridError) as client:
        crew = _Crew(client, address, work, board, parallel)
        with crew.cleaned_up():
            while board.open and stop.signum is None:
                crew.turn()
            if stop.signum is not None:
                crew.let_end()


def offers_gpus(address: str) -> bool:
    """Whether a worker of the cluster offers a GPU.

    Raises:
        GridError: see `medssl.clusters.connect`; no worker has come within PATIENCE seconds.
    """
    with connect(address, GridError) as client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise _no_worker(address) from error
        return any(_gpus(worker) >= 1 for worker in _workers(client).values())


class _Crew:
    """The slots of a cluster, which come and go with its workers, and what each is on."""

    def __init__(self, client: Client, address: str, work: Work, board: Board, parallel: int) -> None:
        self._client, self._address, self._board, self._parallel = client, address, board, parallel
        self._packed = pickle.dumps(work)
        self._grid = uuid.uuid4().hex  # not of its content: a command that was killed may have left children of the same
        self._on: dict[Slot, Future | None] = {}
        self._looked_at = -_LOOK
        self._lacking_since: float | None = None

    def turn(self) -> None:
        """Look who is there, hand out jobs, hear what came of them."""
        if time.monotonic() - self._looked_at >= _LOOK:
            self._look()
            self._looked_at = time.monotonic()
        for slot, future in self._on.items():
            if future is None and (job := self._board.take(slot, gpu=slot.has_gpu)) is not None:
                self._on[slot] = self._begin(slot, job)
        self._listen()

    def let_end(self) -> None:
        """Ask the children to stop, and hear what they have done within GRACE seconds."""
        self._client.run(_ask_to_stop, self._grid, on_error="ignore")
        end = time.monotonic() + GRACE
        while time.monotonic() < end and any(future is not None for future in self._on.values()):
            self._listen()

    @contextmanager
    def cleaned_up(self) -> Iterator[None]:
        """After the block no child of this grid is left on a worker that can be reached."""
        try:
            yield
        finally:
            if self._client.status == "running":
                with suppress(Exception):  # an error that is under way says more
                    self._client.cancel([future for future in self._on.values() if future is not None])
                    self._client.run(_end, self._grid, on_error="ignore")

    def _look(self) -> None:
        self._assert_connected()
        slots = set(_slots(_workers(self._client), self._parallel))
        for slot in [slot for slot in self._on if slot not in slots]:
            future = self._on.pop(slot)
            if future is not None:
                future.cancel()
                self._board.note(slot, Outcome("died", error="its dask worker has gone"))
            self._board.gone(slot)
        for slot in sorted(slots - set(self._on), key=lambda slot: (slot.number, slot.address)):
            self._on[slot] = None
        self._assert_somebody_can()

    def _assert_somebody_can(self) -> None:
        lacks_gpu = self._board.wants_gpu and not any(slot.has_gpu for slot in self._on)
        if self._on and not lacks_gpu:
            self._lacking_since = None
            return
        if self._lacking_since is None:
            self._lacking_since = time.monotonic()
            what = "no worker offers a GPU, and there are jobs that need one" if self._on else "no worker is there"
            self._board.tell(f"--scheduler {self._address}: {what}; waiting {PATIENCE:.0f} s for one")
        if time.monotonic() - self._lacking_since > PATIENCE:
            raise _no_gpu(self._address) if self._on else _no_worker(self._address)

    def _assert_connected(self) -> None:
        if self._client.status != "running":
            raise GridError(
                f"--scheduler {self._address}: the scheduler has gone; start it and run the same command again: what is finished is kept"
            )

    def _begin(self, slot: Slot, job: Job) -> Future:
        return self._client.submit(
            _do_in_worker,
            self._packed,
            self._grid,
            slot,
            job,
            medssl.__version__,
            workers=[slot.address],
            resources={"GPU": 1 / self._parallel} if job.needs_gpu else None,
            pure=False,  # dask must not hold results for a call that looks the same
            retries=0,
        )

    def _listen(self) -> None:
        time.sleep(_POLL)
        self._assert_connected()
        for slot, future in self._on.items():
            if future is not None and future.done():
                self._on[slot] = None
                self._board.note(slot, _outcome_of(future, slot))


def _outcome_of(future: Future, slot: Slot) -> Outcome:
    try:
        return future.result(timeout=_FETCH)
    except GridError as error:
        raise GridError(f"{error} (dask worker {slot.address})") from error
    except ImportError as error:
        raise GridError(
            f"--scheduler: the worker {slot.address} cannot import what it needs ({error}); install medssl there"
        ) from error
    except Exception as error:  # dask's own: the worker died with its result, or was too busy to hand it over
        return Outcome("died", error=f"its dask worker did not answer ({type(error).__name__})")


def _workers(client: Client) -> dict[str, dict[str, Any]]:
    return client.scheduler_info(n_workers=-1)["workers"]


def _gpus(worker: dict[str, Any]) -> float:
    return worker.get("resources", {}).get("GPU", 0)


def _slots(workers: dict[str, dict[str, Any]], parallel: int) -> Iterator[Slot]:
    for address, worker in workers.items():
        gpus = int(_gpus(worker))
        for number in range(worker["nthreads"]):
            yield Slot(address, number, gpus, number < gpus * parallel)


def _no_worker(address: str) -> GridError:
    return GridError(
        f"--scheduler {address}: no worker for {PATIENCE:.0f} s; start some (`dask worker {address}`) and run the same command again: "
        "what is finished is kept"
    )


def _no_gpu(address: str) -> GridError:
    return GridError(
        f"--scheduler {address}: there are jobs that need a GPU, and no worker offered one for {PATIENCE:.0f} s; start workers with "
        "`--resources GPU=1`, or pass --set device=cpu"
    )


# What follows runs in the dask workers.


@dataclass
class _Place:
    """The child process of one slot, which stays for the next job of its grid."""

    worker: Worker
    busy: bool = False
    idle: threading.Timer | None = field(default=None)


_places: dict[tuple[str, int], _Place] = {}
_lock = threading.Lock()


def _do_in_worker(packed: bytes, grid: str, slot: Slot, job: Job, version: str) -> Outcome:
    if medssl.__version__ != version:
        raise GridError(
            f"--scheduler: a worker has medssl {medssl.__version__}, this command is of {version}; install the same on all"
        )
    key = (grid, slot.number)
    with _lock:
        place = _places.setdefault(key, _Place(Worker(packed, _environment(slot))))
        place.busy = True
        if place.idle is not None:
            place.idle.cancel()
    try:
        place.worker.begin(job)
        while (outcome := place.worker.hear()) is None:
            pass
        return outcome
    finally:
        with _lock:
            place.busy = False
            place.idle = threading.Timer(IDLE, _end_if_idle, (key,))
            place.idle.daemon = True
            place.idle.start()


def _environment(slot: Slot) -> dict[str, str]:
    if not slot.has_gpu:
        return {"CUDA_VISIBLE_DEVICES": ""}
    # Of a worker with one GPU its own variable says which; of several the slots take turns.
    return {"CUDA_VISIBLE_DEVICES": visible(slot.number % slot.gpus)} if slot.gpus > 1 else {}


def _end_if_idle(key: tuple[str, int]) -> None:
    with _lock:
        if key in _places and not _places[key].busy:
            _places.pop(key).worker.kill()


def _ask_to_stop(grid: str) -> None:
    for place in _of(grid):
        place.worker.ask_to_stop()


def _end(grid: str) -> None:
    for place in _of(grid):
        place.worker.interrupt()
    for key in [key for key in list(_places) if key[0] == grid]:
        _end_if_idle(key)


def _of(grid: str) -> list[_Place]:
    with _lock:
        return [place for key, place in _places.items() if key[0] == grid]
