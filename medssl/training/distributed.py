"""The processes of one run: how they find each other, agree on what to do next, and end together.

Gathers with gradients are in `medssl.training.collectives`. Here all traffic is small and between CPUs, so no GPU is waited for.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import torch
import torch.distributed as dist

from medssl.errors import LaunchError, UserError
from medssl.training.launch import Launch, launch_of

_JOIN_SECONDS = 300  # until all processes must have come
_COLLECTIVE_SECONDS = 1800  # until a rank that does not come to a collective counts as lost
_BEAT_SECONDS = 0.5
_SILENT_SECONDS = 30.0  # a rank that is silent for so long is lost; importing a large library can keep it silent for some seconds
_SILENT_SECONDS_IN_TROUBLE = 4.0  # the same where something else says already that a rank is lost
_LAST_SECONDS = 5.0  # that a process gets to end by itself once another has failed
FAILED = 2


class World:
    """One process that knows of the others. A world of one does nothing and costs nothing.

    Attributes:
        rank, size, local_rank: see `Launch`.
    """

    def __init__(self, launch: Launch = Launch()) -> None:
        self.launch = launch
        self.rank, self.size, self.local_rank = launch.rank, launch.size, launch.local_rank
        self._watch: Watchdog | None = None
        self._places = 0

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone writes, logs and speaks."""
        return self.rank == 0

    @property
    def knows_failure(self) -> bool:
        """Whether another rank has said that it failed."""
        return self._watch is not None and self._watch.failure is not None

    def join(self) -> None:
        """Meet the other processes.

        Raises:
            LaunchError: they do not come.
        """
        if self.size == 1:
            return
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(self.local_rank % torch.cuda.device_count())
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=dist.PrefixStore(f"group/{self.launch.attempt}", self._store()),
                rank=self.rank,
                world_size=self.size,
                timeout=datetime.timedelta(seconds=_COLLECTIVE_SECONDS),
            )
        except (RuntimeError, ValueError) as problem:
            raise LaunchError(
                f"launch: rank {self.rank} of {self.size} did not meet the others at {self.launch.address}:{self.launch.port} "
                f"({' '.join(str(problem).split())[:160]})"
            ) from problem
        self._watch = Watchdog(self.launch)
        self._watch.start()

    def _store(self) -> dist.Store:
        """Where ranks leave their addresses. torchrun holds one through all restarts: without the attempt in its keys (see `join`) a
        rank that is quicker than rank 0 would connect to the address that rank 0 had before."""
        holds = self.leads and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        limit = datetime.timedelta(seconds=_JOIN_SECONDS)
        return dist.TCPStore(self.launch.address, self.launch.port, None, is_master=holds, timeout=limit)

    def leave(self) -> None:
        """Wait for the others at the end of a run that went well."""
        if self._watch is None:
            return
        dist.barrier()
        self._watch.stop()
        dist.destroy_process_group()
        self._watch = None

    def unwatch(self) -> None:
        """Be watched no more: this process ends, and the others know why."""
        if self._watch is not None:
            self._watch.stop()

    def agree(self, *values: int) -> tuple[int, ...]:
        """The largest of what all ranks say, value by value: called at the same place by all of them.

        Raises:
            LaunchError: another rank has failed.
        """
        if self.size == 1:
            return values
        self._refuse_failed()
        shared = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return tuple(shared.tolist())

    def wait(self) -> None:
        """Until all ranks are here."""
        self.agree(0)

    @contextlib.contextmanager
    def leader_first(self) -> Iterator[None]:
        """The block is run by rank 0, and after it, however long it took, by the others: they find its work done.

        Raises:
            LaunchError: another rank has failed meanwhile.
        """
        if self.size == 1:
            yield
            return
        self._places += 1
        place = f"place/{self._places}"
        if not self.leads:
            while not self._watch.has(place):
                self._refuse_failed()
                time.sleep(0.05)
        yield
        if self.leads:
            self._watch.put(place, "done")

    def tell(self, name: str, text: str | None = None) -> str:
        """What rank 0 says under `name`, for all ranks; only rank 0 gives `text`."""
        if self.size == 1:
            return text
        if self.leads:
            self._watch.put(f"told/{name}", text)
            return text
        while not self._watch.has(f"told/{name}"):
            self._refuse_failed()
            time.sleep(0.05)
        return self._watch.get(f"told/{name}")

    def failed(self, error: BaseException) -> str:
        """Tell the others that this process ends with an error, and say what to show: where another's failure was first, that one."""
        text = " ".join(str(error).split()) or type(error).__name__
        if self._watch is None:
            return text
        told = self._watch.failure or (_lost_connection(error) and self._watch.wait_for_failure(_SILENT_SECONDS_IN_TROUBLE + 2))
        if told:
            return told
        return self._watch.report(self.rank, text)

    def _refuse_failed(self) -> None:
        if self._watch.failure:
            raise LaunchError(self._watch.failure)


class Watchdog:
    """A thread that tells the others that this process lives, and ends this process where another one has failed.

    A rank that waits in a collective for one that has died would wait for half an hour. Each rank listens to the next one alone.
    """

    def __init__(self, launch: Launch) -> None:
        self._rank, self._size = launch.rank, launch.size
        host, port = launch.address, launch.port
        # A connection of its own: the one of the process group can be busy in a wait.
        store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=datetime.timedelta(seconds=30))
        self._store = dist.PrefixStore(f"medssl/{launch.attempt}", store)
        self._lock = threading.Lock()
        self._stopped, self._trouble = threading.Event(), threading.Event()
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="medssl-ranks", daemon=True)
        self.put(f"beat/{self._rank}", "0")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; the process is no longer watched."""
        self._stopped.set()
        self._thread.join(timeout=10)

    def has(self, key: str) -> bool:
        """Whether any rank has put `key`."""
        with self._lock:
            return self._store.check([key])

    def get(self, key: str) -> str:
        """What was put."""
        with self._lock:
            return self._store.get(key).decode()

    def put(self, key: str, value: str) -> None:
        """For all ranks."""
        with self._lock:
            self._store.set(key, value)

    def report(self, rank: int, text: str) -> str:
        """Say that `rank` has failed, unless another failure was first; returns the first."""
        with self._lock, contextlib.suppress(RuntimeError):
            told = self._store.compare_set("failed", "", f"rank {rank} of {self._size}: {text}").decode()
            self.failure = self.failure or told
        return self.failure or f"rank {rank} of {self._size}: {text}"

    def wait_for_failure(self, seconds: float) -> str | None:
        """The failure of another rank, which this one has noticed but has not been told of."""
        self._trouble.set()
        end = time.monotonic() + seconds
        while self.failure is None and time.monotonic() < end:
            time.sleep(0.05)
        return self.failure

    def _run(self) -> None:
        beat, lost = 0, 0
        following, heard, since = (self._rank + 1) % self._size, "", time.monotonic()
        while not self._stopped.wait(_BEAT_SECONDS):
            beat += 1
            try:
                self.put(f"beat/{self._rank}", str(beat))
                now = self.get(f"beat/{following}") if self.has(f"beat/{following}") else ""
                told = self.get("failed") if self.has("failed") else None
                lost = 0
            except RuntimeError:
                lost += 1
                if lost < 3:
                    continue
                told, now = f"rank 0 of {self._size}, or torchrun, does not answer any more", heard
            if now != heard:
                heard, since = now, time.monotonic()
            limit = _SILENT_SECONDS_IN_TROUBLE if self._trouble.is_set() else _SILENT_SECONDS
            if told is None and time.monotonic() - since > limit:
                told = self.report(
                    following, f"does not answer any more, since {limit:.0f} s; it was killed, or its machine is gone"
                )
            if told is not None:
                self.failure = told
                self._end()
                return

    def _end(self) -> None:
        """Where the main thread is stuck in a collective, nothing but this ends it."""
        if not self._stopped.wait(_LAST_SECONDS):
            sys.stderr.write(f"error: {self.failure}\n")
            sys.stderr.flush()
            os._exit(FAILED)


def _lost_connection(error: BaseException) -> bool:
    """Whether an error is what a rank sees when another one is gone."""
    return isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError)


@contextlib.contextmanager
def joined(launch: Launch | None = None) -> Iterator[World]:
    """The world of this process, joined and left. Where the block fails on one rank, all ranks end within seconds, and say which.

    Raises:
        LaunchError: another rank has failed, or the others do not come.
    """
    world = World(launch or launch_of())
    world.join()
    try:
        yield world
    except BaseException as error:
        if world.size == 1:
            raise
        if getattr(error, "signum", None) is not None:  # all have agreed to stop
            world.unwatch()
            raise
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it at once, before this rank could say why it ends
        if not isinstance(error, UserError | KeyboardInterrupt) and not world.knows_failure:
            traceback.print_exc()
        told = world.failed(error)
        world.unwatch()
        raise LaunchError(told) from error
    world.leave()
